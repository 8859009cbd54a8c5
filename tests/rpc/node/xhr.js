// The part of XMLHttpRequest that `grpc-web` uses, on fetch, with the text so far while more is coming, as browsers have it.
export class XMLHttpRequest {
  readyState = 0
  status = 0
  statusText = ''
  responseText = ''
  responseType = ''
  response = ''
  #headers = new Headers()
  #controller = new AbortController()
  #answer

  open(method, url) {
    Object.assign(this, { method, url })
    this.#become(1)
  }

  setRequestHeader(name, value) {
    this.#headers.set(name, value)
  }

  getResponseHeader(name) {
    return this.#answer?.headers.get(name) ?? null
  }

  getAllResponseHeaders() {
    return [...(this.#answer?.headers ?? [])].map(([name, value]) => `${name}: ${value}\r\n`).join('')
  }

  abort() {
    this.#controller.abort()
  }

  async send(body) {
    try {
      const init = { method: this.method, headers: this.#headers, body, signal: this.#controller.signal }
      this.#answer = await fetch(this.url, init)
      this.status = this.#answer.status
      this.#become(2)
      if (this.responseType === 'arraybuffer') this.response = await this.#answer.arrayBuffer()
      else for await (const bytes of this.#answer.body) {
        this.response = this.responseText += Buffer.from(bytes).toString('latin1')
        this.#become(3)
      }
    } catch {
      this.status = 0 // as browsers do when there is no connection
    }
    this.#become(4)
  }

  #become(state) {
    this.readyState = state
    this.onreadystatechange?.()
  }
}
