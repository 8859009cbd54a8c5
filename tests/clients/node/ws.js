// Opens one WebSocket with the `ws` package and prints what happens to it, one JSON document a line.
// node ws.js URL SUBPROTOCOL...; WS_OPTIONS: options of the library, as JSON
import WebSocket from 'ws'

const [url, ...protocols] = process.argv.slice(2)
const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }))
const ws = new WebSocket(url, protocols, JSON.parse(process.env.WS_OPTIONS ?? '{}'))

ws.on('open', () => say('open', { protocol: ws.protocol, extensions: ws.extensions }))
ws.on('message', (data, binary) => say('message', { data: data.toString(), binary }))
ws.on('ping', () => say('ping'))
ws.on('close', (code, reason) => say('close', { code, reason: reason.toString() }))
ws.on('error', (error) => say('error', { message: error.message }))
