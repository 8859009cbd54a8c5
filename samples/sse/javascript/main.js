// Prints every finished round of one game. When the connection is lost, EventSource resumes where it stopped.
import { EventSource } from 'eventsource'

const { BASE_URL = 'http://127.0.0.1:8080', API_KEY = 'sk_live_' + '0'.repeat(64), GAME = 'crash' } = process.env

const source = new EventSource(`${BASE_URL}/sse/${GAME}`, {
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, 'X-API-Key': API_KEY } }),
})

source.onmessage = (event) => {
  const round = JSON.parse(event.data)
  console.log(`[${round.game_slug}] Round ${round.round_id}`)
}

source.onerror = (error) => {
  console.error(`disconnected: ${error.message ?? 'the stream ended'}`)
  if (source.readyState === EventSource.CLOSED) process.exit(1) // refused: the key or the game is invalid
}
