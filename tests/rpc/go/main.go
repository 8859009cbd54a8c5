// Calls one method with grpc-go. client ADDRESS KEY DESCRIPTORS METHOD REQUEST_AS_JSON
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

func main() {
	address, key, method, request := os.Args[1], os.Args[2], methodOf(os.Args[3], os.Args[4]), os.Args[5]
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	asked := dynamicpb.NewMessage(method.Input())
	check(protojson.Unmarshal([]byte(request), asked))

	calling := metadata.AppendToOutgoingContext(context.Background(), "x-api-key", key)
	description := grpc.StreamDesc{ServerStreams: method.IsStreamingServer()}
	path := "/datastream.DataStream/" + string(method.Name())
	stream, err := connection.NewStream(calling, &description, path, grpc.UseCompressor(gzip.Name))
	check(err)
	check(stream.SendMsg(asked))
	check(stream.CloseSend())
	for {
		answer := dynamicpb.NewMessage(method.Output())
		if err = stream.RecvMsg(answer); err != nil {
			break
		}
		shown, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(answer)
		check(err)
		say(struct {
			Event   string          `json:"event"`
			Message json.RawMessage `json:"message"`
		}{"message", shown})
		if !description.ServerStreams {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	trailers := map[string]string{}
	for name, values := range stream.Trailer() {
		trailers[name] = values[0]
	}
	ended := status.Convert(err)
	say(struct {
		Event    string            `json:"event"`
		Code     string            `json:"code"`
		Sentence string            `json:"sentence"`
		Trailers map[string]string `json:"trailers"`
	}{"end", ended.Code().String(), ended.Message(), trailers})
}

func methodOf(file, name string) protoreflect.MethodDescriptor {
	data, err := os.ReadFile(file)
	check(err)
	set := &descriptorpb.FileDescriptorSet{}
	check(proto.Unmarshal(data, set))
	files, err := protodesc.NewFiles(set)
	check(err)
	service, err := files.FindDescriptorByName("datastream.DataStream")
	check(err)
	return service.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func say(facts any) {
	line, err := json.Marshal(facts)
	check(err)
	fmt.Println(string(line))
}
