// Command grpcserver serves StreamAll of the relay's service with grpc-go: what it reads is what it sends.
//
// It prints its port. Then each line of standard input is the number of messages to send at once to every stream; the
// messages are those of the file in its argument, in turn: each with its length before it, as gRPC has it. A message is
// encoded once for all streams (grpc.PreparedMsg), and streams that have sent what there is wait on one condition.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// raw is a message that is encoded already.
type raw []byte

type codec struct{}

func (codec) Name() string { return "raw" }

func (codec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*value.(*raw))}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, value any) error {
	*value.(*raw) = data.Materialize()
	return nil
}

type server struct {
	lock     sync.Mutex
	more     *sync.Cond
	messages []raw
	prepared []*grpc.PreparedMsg // what has been published, encoded by the first stream
}

func main() {
	data, err := os.ReadFile(os.Args[1])
	check(err)
	var messages []raw
	for len(data) > 0 {
		end := 5 + int(binary.BigEndian.Uint32(data[1:]))
		messages = append(messages, raw(data[5:end]))
		data = data[end:]
	}
	one := &server{messages: messages}
	one.more = sync.NewCond(&one.lock)
	encoding.RegisterCodecV2(codec{})
	service := grpc.NewServer(grpc.ForceServerCodecV2(codec{}))
	service.RegisterService(&grpc.ServiceDesc{
		ServiceName: "datastream.DataStream",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "StreamAll", Handler: one.stream, ServerStreams: true}},
	}, one)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go one.publish()
	check(service.Serve(listener))
}

func (s *server) publish() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count, err := strconv.Atoi(lines.Text())
		check(err)
		s.lock.Lock()
		for range count {
			s.prepared = append(s.prepared, nil)
		}
		s.lock.Unlock()
		s.more.Broadcast()
	}
	os.Exit(0)
}

func (s *server) stream(_ any, stream grpc.ServerStream) error {
	var request raw
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	s.lock.Lock()
	next := len(s.prepared)
	s.lock.Unlock()
	for {
		message, err := s.message(next, stream)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
		next++
	}
}

// message waits for a message and returns it, encoded.
func (s *server) message(number int, stream grpc.ServerStream) (*grpc.PreparedMsg, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for number >= len(s.prepared) {
		s.more.Wait()
	}
	if s.prepared[number] == nil {
		prepared := new(grpc.PreparedMsg)
		if err := prepared.Encode(stream, &s.messages[number%len(s.messages)]); err != nil {
			return nil, err
		}
		s.prepared[number] = prepared
	}
	return s.prepared[number], nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
