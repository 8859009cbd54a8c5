// What every client script prints: one JSON document a line, for each message and for the end.
const plain = (_, value) => (typeof value === 'bigint' ? value.toString() : value)
const say = (event, facts) => console.log(JSON.stringify({ event, ...facts }, plain))

export const message = (value) => say('message', { message: value })
export const end = (code, sentence = '', trailers = {}) => say('end', { code, sentence, trailers })
