package main

import (
	"context"
	"net/http"
	"os"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// withGorilla offers compression without context takeover, the only one that the library has.
func withGorilla(url string) error {
	dialer := gorilla.Dialer{EnableCompression: true}
	connection, answer, err := dialer.Dial(url, key())
	if err != nil {
		return err
	}
	say("open", answer.Header.Get("Sec-WebSocket-Extensions"), "")
	for {
		_, data, err := connection.ReadMessage()
		if err != nil {
			return err
		}
		say("message", string(data), "")
	}
}

// withCoder offers compression with context takeover.
func withCoder(url string) error {
	background := context.Background()
	options := &coder.DialOptions{HTTPHeader: key(), CompressionMode: coder.CompressionContextTakeover}
	connection, answer, err := coder.Dial(background, url, options)
	if err != nil {
		return err
	}
	say("open", answer.Header.Get("Sec-WebSocket-Extensions"), "")
	for {
		_, data, err := connection.Read(background)
		if err != nil {
			return err
		}
		say("message", string(data), "")
	}
}

func key() http.Header {
	return http.Header{"X-API-Key": {os.Getenv("CLIENT_KEY")}}
}
