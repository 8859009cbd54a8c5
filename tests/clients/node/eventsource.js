// Opens one EventSource with the `eventsource` package and prints what happens to it, one JSON document a line.
// node eventsource.js URL [PACKAGE]: another version of it, such as eventsource1
const [url, name = 'eventsource'] = process.argv.slice(2)
const library = await import(name)
const EventSource = library.EventSource ?? library.default

const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }))
const source = new EventSource(url)

source.onopen = () => say('open')
source.onmessage = ({ data, lastEventId }) => say('message', { data, lastEventId })
source.onerror = ({ code, status }) =>
  say(source.readyState === EventSource.CLOSED ? 'gave_up' : 'comes_back', { code: code ?? status })
