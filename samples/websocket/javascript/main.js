// Prints every finished round of one game. When the connection is lost, it resumes where it stopped.
import WebSocket from 'ws'

const { BASE_URL = 'http://127.0.0.1:8080', API_KEY = 'sk_live_' + '0'.repeat(64), GAME = 'crash' } = process.env
let cursor, pause, retry

// Exchanges the key for a token, which opens connections for 30 s.
async function newToken() {
  const response = await fetch(`${BASE_URL}/api/auth/token`, {
    method: 'POST', headers: { 'X-API-Key': API_KEY }, signal: AbortSignal.timeout(10_000),
  })
  if ([400, 401, 403].includes(response.status)) stop(await response.text())
  if (!response.ok) throw new Error(`token: ${response.status}`)
  return (await response.json()).token
}

// Connects and prints rounds until the connection ends.
async function follow() {
  // The event that `hello` asks for has the place to resume at when no round has come.
  const url = `${BASE_URL.replace('http', 'ws')}/ws/${GAME}` + (cursor ? `?after=${cursor}` : '?hello=1')
  const ws = new WebSocket(url, [await newToken()], { handshakeTimeout: 10_000 })
  let alarm
  const alive = () => { clearTimeout(alarm); alarm = setTimeout(() => ws.terminate(), 60_000) }
  ws.on('open', alive).on('ping', alive) // the relay pings every 15 s
  ws.on('message', (data) => {
    const round = JSON.parse(data)
    cursor ??= round.head
    if (!round.round_id) return // a message about the stream itself
    console.log(`[${round.game_slug}] Round ${round.round_id}`)
    cursor = round.cursor
    pause = 1000
  })
  ws.on('close', (code, reason) => {
    if ([1007, 1008, 1009, 4001].includes(code)) stop(reason) // 4001: the key was revoked
    if (reason[0] !== 0x7b) return // not the JSON of the relay, which begins with {
    const end = JSON.parse(reason)
    cursor = end.cursor ?? cursor // everything up to here was sent
    retry = end.retry_ms ?? retry
  })
  ws.on('unexpected-response', async (_request, response) => {
    if ([400, 401, 403, 404].includes(response.statusCode)) stop((await response.setEncoding('utf8').toArray()).join(''))
    ws.terminate()
  })
  await new Promise((resolve, reject) => ws.on('close', resolve).on('error', reject)).finally(() => clearTimeout(alarm))
}

function stop(sentence) {
  console.error(`refused: ${sentence}`)
  process.exit(1)
}

for (pause = 1000; ; pause = Math.min(2 * pause, 30_000)) {
  retry = Math.random() * pause // random, so that clients do not all reconnect at once
  await follow().catch((error) => console.error(`disconnected: ${error.message}`))
  await new Promise((resolve) => setTimeout(resolve, retry))
}
