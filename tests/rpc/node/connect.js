// Calls one method with `@connectrpc/connect-node` or `-web`. node connect.js CLIENT URL KEY DESCRIPTORS METHOD REQUEST_AS_JSON
import { readFileSync } from 'node:fs'
import { createFileRegistry, fromBinary, fromJsonString, toJson } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import * as node from '@connectrpc/connect-node'
import * as web from '@connectrpc/connect-web'
import { end, message } from './say.js'

const [kind, baseUrl, key, descriptors, name, request] = process.argv.slice(2)
const interceptors = [(next) => (call) => (call.header.set('X-API-Key', key), next(call))]
const transports = {
  'node-connect-json': () => node.createConnectTransport({ baseUrl, interceptors, httpVersion: '1.1', useBinaryFormat: false }),
  'node-connect-proto': () => node.createConnectTransport({ baseUrl, interceptors, httpVersion: '1.1', useHttpGet: true }),
  'node-grpc-web': () => node.createGrpcWebTransport({ baseUrl, interceptors, httpVersion: '1.1' }),
  'node-grpc': () => node.createGrpcTransport({ baseUrl, interceptors }),
  'web-connect-json': () => web.createConnectTransport({ baseUrl, interceptors }),
  'web-connect-proto': () => web.createConnectTransport({ baseUrl, interceptors, useBinaryFormat: true }),
  'web-grpc-web': () => web.createGrpcWebTransport({ baseUrl, interceptors }),
}

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)))
const service = registry.getService('datastream.DataStream')
const method = service.methods.find((method) => method.name === name)
const client = createClient(service, transports[kind]())
const show = (value) => message(toJson(method.output, value, { useProtoFieldName: true }))

try {
  const answer = client[method.localName](fromJsonString(method.input, request))
  if (method.methodKind === 'server_streaming') for await (const value of answer) show(value)
  else show(await answer)
  end('OK')
} catch (error) {
  const { code, rawMessage, metadata } = ConnectError.from(error)
  end(Code[code], rawMessage, Object.fromEntries(metadata))
}
