// Prints every finished round of one game, or those that match. When the stream ends, it resumes where it stopped.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "stream-relay-sample/datastream"
)

func main() {
	var filter *pb.Filter // nil: every round
	if text := os.Getenv("MIN_POINT"); text != "" {
		minPoint, err := strconv.ParseFloat(text, 64)
		if err != nil {
			log.Fatalf("MIN_POINT: %v", err)
		}
		filter = &pb.Filter{MinPoint: &minPoint} // a round without a point does not match
	}
	connection, err := grpc.NewClient(env("GRPC_URL", "127.0.0.1:50051"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // credentials.NewTLS(nil) if the relay has a certificate
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		log.Fatalf("GRPC_URL: %v", err)
	}
	client := pb.NewDataStreamClient(connection)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-api-key", env("API_KEY", "sk_live_"+strings.Repeat("0", 64)))
	request := &pb.StreamByGameRequest{
		GameSlug: env("GAME", "crash"),
		Filter:   filter,
		Start:    &pb.Start{AllowGap: true},
	}
	for {
		time.Sleep(follow(ctx, client, request))
	}
}

// follow prints rounds until the stream ends, stores in request where to resume, and returns how long to wait.
func follow(ctx context.Context, client pb.DataStreamClient, request *pb.StreamByGameRequest) time.Duration {
	stream, err := client.StreamByGame(ctx, request)
	if err == nil && request.Start.After == "" {
		header, _ := stream.Header()
		request.Start.After = first(header, "head-cursor") // the starting point, in case the stream ends before a round matches
	}
	for err == nil {
		var round *pb.Round
		round, err = stream.Recv()
		switch {
		case err != nil:
		case round.Gap != nil:
			log.Printf("rounds after %s are gone (%s)", round.Gap.FromCursor, round.Gap.Reason)
		default:
			fmt.Printf("[%s] Round %d\n", round.GameSlug, round.RoundId)
			request.Start.After = round.Cursor // resume after the last round printed
		}
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound:
		log.Fatalf("refused: %v", err) // the request is wrong; any other error is retried
	}
	log.Printf("disconnected: %v", err)
	if stream != nil {
		if cursor := first(stream.Trailer(), "resume-cursor"); cursor != "" {
			request.Start.After = cursor // with a filter, it is far ahead of the last round printed
		}
		if wait, err := strconv.Atoi(first(stream.Trailer(), "retry-after-ms")); err == nil {
			return time.Duration(wait) * time.Millisecond
		}
	}
	return time.Duration(rand.Int63n(int64(2 * time.Second))) // random, so that clients do not all reconnect at once
}

func first(received metadata.MD, name string) string {
	if values := received.Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
