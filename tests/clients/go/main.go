// Opens one event stream, or one WebSocket, with a library and prints what it delivers, one JSON document a line.
// clients LIBRARY URL
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	gosse "github.com/tmaxmax/go-sse"
)

func main() {
	library, url := os.Args[1], os.Args[2]
	var err error
	switch library {
	case "r3labs":
		// As the given Go client: no strategy of its own, and every event with data is a round.
		client := r3labs.NewClient(url)
		client.ReconnectNotify = func(err error, _ time.Duration) { say("comes_back", err.Error(), "") }
		err = client.SubscribeRaw(func(event *r3labs.Event) {
			if len(event.Data) > 0 {
				say(nameOf(string(event.Event)), string(event.Data), string(event.ID))
			}
		})
	case "go-sse":
		request, failed := http.NewRequest(http.MethodGet, url, nil)
		if failed != nil {
			panic(failed)
		}
		client := gosse.Client{Backoff: gosse.Backoff{InitialInterval: 50 * time.Millisecond}}
		connection := client.NewConnection(request)
		connection.SubscribeToAll(func(event gosse.Event) {
			say(nameOf(event.Type), event.Data, event.LastEventID)
		})
		err = connection.Connect()
	case "gorilla":
		err = withGorilla(url)
	case "coder":
		err = withCoder(url)
	default:
		panic("unknown library " + library)
	}
	say("ended", fmt.Sprint(err), "")
}

func nameOf(event string) string {
	if event == "" {
		return "message"
	}
	return event
}

func say(event, data, id string) {
	line, err := json.Marshal(struct {
		Event       string `json:"event"`
		Data        string `json:"data"`
		LastEventID string `json:"lastEventId"`
	}{event, data, id})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
