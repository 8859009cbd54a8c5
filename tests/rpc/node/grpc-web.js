// Calls one method with `grpc-web`. node grpc-web.js FORMAT URL KEY DESCRIPTORS METHOD REQUEST_AS_JSON
import { readFileSync } from 'node:fs'
import { createFileRegistry, fromBinary, fromJsonString, toBinary, toJson } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { end, message } from './say.js'
import { XMLHttpRequest } from './xhr.js'

globalThis.XMLHttpRequest = XMLHttpRequest
const { default: grpcWeb } = await import('grpc-web')

const [format, baseUrl, key, descriptors, name, request] = process.argv.slice(2)
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)))
const method = registry.getService('datastream.DataStream').methods.find((method) => method.name === name)
const streams = method.methodKind === 'server_streaming'
const descriptor = new grpcWeb.MethodDescriptor(
  `/datastream.DataStream/${name}`,
  streams ? grpcWeb.MethodType.SERVER_STREAMING : grpcWeb.MethodType.UNARY,
  Object,
  Object,
  (value) => toBinary(method.input, value),
  (bytes) => fromBinary(method.output, bytes),
)
const client = new grpcWeb.GrpcWebClientBase({ format })
const codes = Object.fromEntries(Object.entries(grpcWeb.StatusCode).map(([word, code]) => [code, word]))
const show = (value) => message(toJson(method.output, value, { useProtoFieldName: true }))
const failed = ({ code, message, metadata }) => end(codes[code], message, metadata)

const url = baseUrl + descriptor.name
const asked = fromJsonString(method.input, request)
const metadata = { 'X-API-Key': key }
if (streams) {
  const call = client.serverStreaming(url, asked, metadata, descriptor)
  call.on('data', show)
  call.on('error', failed)
  call.on('end', () => end('OK'))
} else {
  client.rpcCall(url, asked, metadata, descriptor, (error, answer) => {
    if (error) return failed(error)
    show(answer)
    end('OK')
  })
}
