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
	query   string        // resumes after the last printed round
	pause   = time.Second // before the next connection
)

func main() {
	for {
		log.Printf("disconnected: %v", follow())
		time.Sleep(time.Duration(rand.Int63n(int64(pause)))) // random, so that clients do not all reconnect at once
		if pause < 30*time.Second {
			pause *= 2
		}
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
		var round struct {
			ID     int64  `json:"round_id"`
			Game   string `json:"game_slug"`
			Cursor string `json:"cursor"`
		}
		if err := conn.ReadJSON(&round); err != nil {
			return err
		}
		if round.Cursor != "" { // other messages are about the stream itself
			fmt.Printf("[%s] Round %d\n", round.Game, round.ID)
			query, pause = "?after="+round.Cursor, time.Second
		}
	}
}

// newToken exchanges the key for a token, which opens connections for 30 s.
func newToken() (string, error) {
	request, err := http.NewRequest(http.MethodPost, baseURL+"/api/auth/token", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-API-Key", apiKey)
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request)
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
