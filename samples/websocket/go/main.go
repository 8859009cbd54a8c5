// Prints every finished round of one game. When the connection is lost, it resumes where it stopped.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

var (
	baseURL = env("BASE_URL", "http://127.0.0.1:8080")
	apiKey  = env("API_KEY", "sk_live_"+strings.Repeat("0", 64))
	url     = strings.Replace(baseURL, "http", "ws", 1) + "/ws/" + env("GAME", "crash")
	query   = "?hello=1"  // the first message has the place to resume at; later the query has it
	pause   = time.Second // before the next connection
)

// message is a round, an event about the stream itself, or the reason of a close.
type message struct {
	ID           int64  `json:"round_id"`
	Game         string `json:"game_slug"`
	RetryMS      int64  `json:"retry_ms"`
	Cursor, Head string
}

func main() {
	for {
		err, end := follow(), message{RetryMS: rand.Int63n(pause.Milliseconds())} // random, against reconnects all at once
		if websocket.IsCloseError(err, 1007, 1008, 1009, 4001) {
			log.Fatalf("refused: %v", err) // 4001: the key was revoked
		}
		log.Printf("disconnected: %v", err)
		if closed, ok := err.(*websocket.CloseError); ok && json.Unmarshal([]byte(closed.Text), &end) == nil && end.Cursor != "" {
			query = "?after=" + end.Cursor // everything up to here was sent
		}
		time.Sleep(time.Duration(end.RetryMS) * time.Millisecond)
		pause = 2 * pause % (63 * time.Second) // 1, 2, 4, 8, 16, 32, and again 1 s
	}
}

// follow connects and prints rounds until the connection ends.
func follow() error {
	token, err := newToken()
	if err != nil {
		return err
	}
	dialer := websocket.Dialer{Subprotocols: []string{token}, HandshakeTimeout: 10 * time.Second}
	conn, response, err := dialer.Dial(url+query, nil)
	if err != nil {
		stopIfRefused(response)
		return err
	}
	defer conn.Close()
	conn.SetPingHandler(func(data string) error {
		conn.SetReadDeadline(time.Now().Add(time.Minute)) // the relay pings every 15 s
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(10*time.Second))
	})
	for {
		var round message
		if err := conn.ReadJSON(&round); err != nil {
			return err
		}
		if round.ID != 0 {
			fmt.Printf("[%s] Round %d\n", round.Game, round.ID)
			query, pause = "?after="+round.Cursor, time.Second
		} else if round.Head != "" && query == "?hello=1" {
			query = "?after=" + round.Head
		}
	}
}

// newToken exchanges the key for a token, which opens connections for 30 s.
func newToken() (string, error) {
	request, _ := http.NewRequest(http.MethodPost, baseURL+"/api/auth/token", nil)
	request.Header.Set("X-API-Key", apiKey)
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	stopIfRefused(response)
	var answer map[string]string
	err = json.NewDecoder(response.Body).Decode(&answer)
	return answer["token"], err
}

// stopIfRefused ends the program when the key or the game is wrong; any other error is retried.
func stopIfRefused(response *http.Response) {
	if response != nil && response.StatusCode >= 400 && response.StatusCode <= 404 {
		body, _ := io.ReadAll(response.Body)
		log.Fatalf("refused: %s", body)
	}
}

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
