// Runs interop cases of gRPC that a server of streams can have. interop ADDRESS KEY DESCRIPTORS [CA CERTIFICATE KEY]
//
// https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	service = "datastream.DataStream"
	special = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
	streams = 900
)

var (
	connection *grpc.ClientConn
	key        string
	methods    protoreflect.MethodDescriptors
)

var cases = []struct {
	name string
	run  func(context.Context) error
}{
	{"empty_unary", func(ctx context.Context) error { return want(codes.OK)(unary(ctx, "ListGames", `{}`)) }},
	{"large_unary", func(ctx context.Context) error { return want(codes.OK)(unary(ctx, "GetHistory", `{"limit":1000}`)) }},
	{"server_streaming", serverStreaming},
	{"client_compressed_unary", func(ctx context.Context) error {
		return want(codes.OK)(unary(ctx, "ListGames", `{}`, grpc.UseCompressor(gzip.Name)))
	}},
	{"unknown_compression", func(ctx context.Context) error {
		return want(codes.Unimplemented)(unary(ctx, "ListGames", `{}`, grpc.UseCompressor("reversed")))
	}},
	{"custom_metadata", func(ctx context.Context) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-test-echo-initial", "value", "x-test-echo-trailing-bin", "\xab\xab\xab")
		return want(codes.OK)(unary(ctx, "ListGames", `{}`))
	}},
	{"large_metadata", func(ctx context.Context) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-large", strings.Repeat("m", 20_000))
		// The server has announced how much it takes, and the library sends no more.
		return want(codes.Internal)(unary(ctx, "ListGames", `{}`))
	}},
	{"large_request", func(ctx context.Context) error {
		return want(codes.ResourceExhausted)(unary(ctx, "GetLatest", `{"game_slug":"`+strings.Repeat("r", 100_000)+`"}`))
	}},
	{"special_status_message", specialStatus},
	{"unimplemented_method", func(ctx context.Context) error {
		return want(codes.Unimplemented)(connection.Invoke(ctx, "/"+service+"/UnimplementedCall", empty(), empty()))
	}},
	{"unimplemented_service", func(ctx context.Context) error {
		return want(codes.Unimplemented)(connection.Invoke(ctx, "/grpc.testing.UnimplementedService/X", empty(), empty()))
	}},
	{"unauthenticated", func(ctx context.Context) error {
		ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("x-api-key", "sk_live_nobody"))
		return want(codes.Unauthenticated)(unary(ctx, "ListGames", `{}`))
	}},
	{"cancel_after_begin", func(ctx context.Context) error { return cancelled(ctx, 0) }},
	{"cancel_after_first_response", func(ctx context.Context) error { return cancelled(ctx, 1) }},
	{"timeout_on_sleeping_server", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		stream, err := open(ctx, "StreamByGame", `{"game_slug":"plinko"}`)
		if err == nil {
			_, err = receive(stream, "StreamByGame")
		}
		return want(codes.DeadlineExceeded)(err)
	}},
	{"many_streams", manyStreams},
	{"health", checkHealth},
	{"reflection", checkReflection},
}

func main() {
	encoding.RegisterCompressor(reversed{})
	key = os.Args[2]
	methods = methodsOf(os.Args[3])
	var err error
	connection, err = grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(chosen(os.Args[4:])))
	check(err)
	for _, each := range cases {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := each.run(metadata.AppendToOutgoingContext(ctx, "x-api-key", key))
		cancel()
		text := ""
		if err != nil {
			text = err.Error()
		}
		line, err := json.Marshal(map[string]string{"case": each.name, "error": text})
		check(err)
		fmt.Println(string(line))
	}
	fmt.Println("done")
}

func serverStreaming(ctx context.Context) error {
	stream, err := open(ctx, "Replay", `{}`)
	if err != nil {
		return err
	}
	rounds := 0
	for {
		batch, err := receive(stream, "Replay")
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rounds += batch.Get(batch.Descriptor().Fields().ByName("rounds")).List().Len()
	}
	if rounds != 3 {
		return fmt.Errorf("%d rounds, not 3", rounds)
	}
	return nil
}

func specialStatus(ctx context.Context) error {
	request, err := json.Marshal(map[string]string{"game_slug": special})
	check(err)
	err = unary(ctx, "GetLatest", string(request))
	if message := status.Convert(err).Message(); !strings.Contains(message, "☺ and non-BMP 😈") {
		return fmt.Errorf("the message is %q", message)
	}
	return want(codes.NotFound)(err)
}

func cancelled(ctx context.Context, after int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx, "StreamByGame", `{"game_slug":"crash","start":{"last":3}}`)
	if err != nil {
		return err
	}
	for range after {
		if _, err = receive(stream, "StreamByGame"); err != nil {
			return err
		}
	}
	cancel()
	for err == nil {
		_, err = receive(stream, "StreamByGame")
	}
	return want(codes.Canceled)(err)
}

func manyStreams(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var opened []grpc.ClientStream
	for range streams {
		stream, err := open(ctx, "StreamByGame", `{"game_slug":"crash","start":{"last":1}}`)
		if err != nil {
			return err
		}
		opened = append(opened, stream)
	}
	for number, stream := range opened {
		if _, err := receive(stream, "StreamByGame"); err != nil {
			return fmt.Errorf("stream %d: %w", number, err)
		}
	}
	return nil
}

func checkHealth(ctx context.Context) error {
	client := health.NewHealthClient(connection)
	for _, name := range []string{"", service} {
		answer, err := client.Check(ctx, &health.HealthCheckRequest{Service: name})
		if err != nil || answer.Status != health.HealthCheckResponse_SERVING {
			return fmt.Errorf("%v %w", answer, err)
		}
		watch, err := client.Watch(ctx, &health.HealthCheckRequest{Service: name})
		if err != nil {
			return err
		}
		if answer, err = watch.Recv(); err != nil || answer.Status != health.HealthCheckResponse_SERVING {
			return fmt.Errorf("%v %w", answer, err)
		}
	}
	all, err := client.List(ctx, &health.HealthListRequest{})
	if err != nil || len(all.Statuses) != 2 {
		return fmt.Errorf("%v %w", all, err)
	}
	_, err = client.Check(ctx, &health.HealthCheckRequest{Service: "nope"})
	return want(codes.NotFound)(err)
}

func checkReflection(ctx context.Context) error {
	stream, err := reflectv1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	older, err := reflectalpha.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	check(stream.Send(&reflectv1.ServerReflectionRequest{
		MessageRequest: &reflectv1.ServerReflectionRequest_ListServices{}}))
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	var names []string
	for _, each := range answer.GetListServicesResponse().Service {
		names = append(names, each.Name)
	}
	if !slices.Contains(names, service) {
		return fmt.Errorf("no service %s in %v", service, names)
	}
	for _, name := range names {
		check(stream.Send(&reflectv1.ServerReflectionRequest{
			MessageRequest: &reflectv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}}))
		check(older.Send(&reflectalpha.ServerReflectionRequest{
			MessageRequest: &reflectalpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}}))
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		same, err := older.Recv()
		if err != nil {
			return err
		}
		files := answer.GetFileDescriptorResponse().GetFileDescriptorProto()
		if !slices.EqualFunc(files, same.GetFileDescriptorResponse().GetFileDescriptorProto(), slices.Equal) {
			return fmt.Errorf("the versions answer differently about %s", name)
		}
		set := &descriptorpb.FileDescriptorSet{}
		for _, file := range files {
			described := &descriptorpb.FileDescriptorProto{}
			check(proto.Unmarshal(file, described))
			set.File = append(set.File, described)
		}
		found, err := protodesc.NewFiles(set)
		if err != nil {
			return err
		}
		if _, err = found.FindDescriptorByName(protoreflect.FullName(name)); err != nil {
			return err
		}
	}
	check(stream.CloseSend())
	if _, err = stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream has not ended: %w", err)
	}
	return nil
}

// --- calls ---

func unary(ctx context.Context, name, request string, options ...grpc.CallOption) error {
	asked, answer := message(name, request), dynamicpb.NewMessage(method(name).Output())
	return connection.Invoke(ctx, "/"+service+"/"+name, asked, answer, options...)
}

func open(ctx context.Context, name, request string) (grpc.ClientStream, error) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+service+"/"+name)
	if err != nil {
		return nil, err
	}
	if err = stream.SendMsg(message(name, request)); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func receive(stream grpc.ClientStream, name string) (*dynamicpb.Message, error) {
	answer := dynamicpb.NewMessage(method(name).Output())
	return answer, stream.RecvMsg(answer)
}

func method(name string) protoreflect.MethodDescriptor {
	return methods.ByName(protoreflect.Name(name))
}

func message(name, request string) *dynamicpb.Message {
	asked := dynamicpb.NewMessage(method(name).Input())
	check(protojson.Unmarshal([]byte(request), asked))
	return asked
}

func empty() *dynamicpb.Message { return dynamicpb.NewMessage(method("ListGames").Input()) }

func want(code codes.Code) func(error) error {
	return func(err error) error {
		if found := status.Code(err); found != code {
			return fmt.Errorf("the code is %s, not %s: %v", found, code, err)
		}
		return nil
	}
}

type reversed struct{}

func (reversed) Name() string                                 { return "reversed" }
func (reversed) Compress(w io.Writer) (io.WriteCloser, error) { return plain{w}, nil }
func (reversed) Decompress(r io.Reader) (io.Reader, error)    { return r, nil }

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

func chosen(files []string) credentials.TransportCredentials {
	if len(files) == 0 {
		return insecure.NewCredentials()
	}
	data, err := os.ReadFile(files[0])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	config := &tls.Config{RootCAs: roots}
	if len(files) == 3 {
		pair, err := tls.LoadX509KeyPair(files[1], files[2])
		check(err)
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config)
}

func methodsOf(file string) protoreflect.MethodDescriptors {
	data, err := os.ReadFile(file)
	check(err)
	set := &descriptorpb.FileDescriptorSet{}
	check(proto.Unmarshal(data, set))
	files, err := protodesc.NewFiles(set)
	check(err)
	found, err := files.FindDescriptorByName(service)
	check(err)
	return found.(protoreflect.ServiceDescriptor).Methods()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
