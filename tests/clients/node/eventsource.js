// Opens one EventSource with the `eventsource` package and prints what happens to it, one JSON document a line.
// node eventsource.js URL
import { EventSource } from 'eventsource'

const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }))
const source = new EventSource(process.argv[2])

source.onopen = () => say('open')
source.onmessage = ({ data, lastEventId }) => say('message', { data, lastEventId })
source.onerror = ({ code }) => say(source.readyState === EventSource.CLOSED ? 'gave_up' : 'comes_back', { code })
