// Calls one method with `@grpc/grpc-js`. node grpc-js.js ADDRESS KEY PROTO_FILE METHOD REQUEST_AS_JSON
import * as grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { end, message } from './say.js'

const [address, key, file, method, request] = process.argv.slice(2)
const { datastream } = grpc.loadPackageDefinition(loadSync(file, { keepCase: true, longs: String, defaults: false }))
const client = new datastream.DataStream(address, grpc.credentials.createInsecure())
const metadata = new grpc.Metadata()
metadata.set('x-api-key', key)

const failed = ({ code, details, metadata }) => end(grpc.status[code], details, metadata.getMap())
const { responseStream } = datastream.DataStream.service[method]
if (responseStream) {
  const call = client[method](JSON.parse(request), metadata)
  call.on('data', message)
  call.on('error', failed)
  call.on('end', () => end('OK'))
} else {
  client[method](JSON.parse(request), metadata, (error, answer) => {
    if (error) return failed(error)
    message(answer)
    end('OK')
  })
}
