// Prints every finished round of one game, or those that match. When the stream ends, it resumes where it stopped.
import { fileURLToPath } from 'node:url'
import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const { GRPC_URL = '127.0.0.1:50051', API_KEY = 'sk_live_' + '0'.repeat(64), GAME = 'crash', MIN_POINT } = process.env
const FATAL = [grpc.status.INVALID_ARGUMENT, grpc.status.UNAUTHENTICATED, grpc.status.PERMISSION_DENIED, grpc.status.NOT_FOUND]

const proto = fileURLToPath(new URL('../../../proto/datastream.proto', import.meta.url))
const { datastream } = grpc.loadPackageDefinition(loadSync(proto, { keepCase: true, longs: String }))
// grpc.credentials.createSsl() if the relay has a certificate.
const client = new datastream.DataStream(GRPC_URL, grpc.credentials.createInsecure(), {
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
})
const metadata = new grpc.Metadata()
metadata.set('x-api-key', API_KEY)
const request = { game_slug: GAME, start: { allow_gap: true } }
if (MIN_POINT) request.filter = { min_point: Number(MIN_POINT) } // a round without a point does not match

function follow() {
  const call = client.StreamByGame(request, metadata)
  call.on('metadata', (received) => {
    request.start.after ??= received.get('head-cursor')[0] // the starting point, in case the stream ends before a round matches
  })
  call.on('data', (round) => {
    if (round.gap) return console.error(`rounds after ${round.gap.from_cursor} are gone (${round.gap.reason})`)
    console.log(`[${round.game_slug}] Round ${round.round_id}`)
    request.start.after = round.cursor // resume after the last round printed
  })
  call.on('error', () => {}) // the status event has the details
  call.on('status', ({ code, details, metadata }) => {
    if (FATAL.includes(code)) {
      console.error(`refused: ${details}`)
      process.exit(1)
    }
    console.error(`disconnected: ${details}`)
    const [cursor] = metadata.get('resume-cursor')
    if (cursor) request.start.after = cursor // with a filter, it is far ahead of the last round printed
    const [wait] = metadata.get('retry-after-ms')
    setTimeout(follow, wait === undefined ? Math.random() * 2000 : Number(wait)) // random, so that clients do not all reconnect at once
  })
}

follow()
