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

	"github.com/r3labs/sse/v2"
)

type round struct {
	RoundID  int64  `json:"round_id"`
	GameSlug string `json:"game_slug"`
}

func main() {
	client := sse.NewClient(env("BASE_URL", "http://127.0.0.1:8080") + "/sse/" + env("GAME", "crash"))
	client.Headers["X-API-Key"] = env("API_KEY", "sk_live_"+strings.Repeat("0", 64))
	client.ResponseValidator = stopIfRefused
	client.ReconnectNotify = func(err error, _ time.Duration) { log.Printf("disconnected: %v", err) }
	for { // the library reconnects after an error, for a quarter of an hour, but not after a complete answer
		err := client.SubscribeRaw(func(event *sse.Event) {
			var r round
			if len(event.Event) > 0 || json.Unmarshal(event.Data, &r) != nil {
				return // an event about the stream itself, or a truncated one
			}
			fmt.Printf("[%s] Round %d\n", r.GameSlug, r.RoundID)
			client.Headers["Last-Event-ID"] = string(event.ID) // resume after the last round printed
		})
		log.Printf("disconnected: %v", err)
		time.Sleep(time.Duration(rand.Int63n(int64(2 * time.Second))))
	}
}

// stopIfRefused ends the program when the relay refuses the request; any other error is retried.
func stopIfRefused(_ *sse.Client, response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode >= 400 && response.StatusCode <= 404 {
		log.Fatalf("refused: %s", body)
	}
	return fmt.Errorf("%s: %s", response.Status, body)
}

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
