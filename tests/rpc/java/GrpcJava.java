import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/** Calls one method with grpc-java. GrpcJava ADDRESS KEY DESCRIPTORS METHOD REQUEST_AS_JSON */
public final class GrpcJava {
    private static final JsonFormat.Printer PRINTER =
            JsonFormat.printer().preservingProtoFieldNames().omittingInsignificantWhitespace();

    public static void main(String[] arguments) throws Exception {
        Descriptors.MethodDescriptor method = method(Path.of(arguments[2]), arguments[3]);
        DynamicMessage.Builder request = DynamicMessage.newBuilder(method.getInputType());
        JsonFormat.parser().merge(arguments[4], request);
        MethodDescriptor<DynamicMessage, DynamicMessage> called =
                MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
                        .setType(method.isServerStreaming() ? MethodType.SERVER_STREAMING : MethodType.UNARY)
                        .setFullMethodName(MethodDescriptor.generateFullMethodName(
                                "datastream.DataStream", method.getName()))
                        .setRequestMarshaller(ProtoUtils.marshaller(
                                DynamicMessage.getDefaultInstance(method.getInputType())))
                        .setResponseMarshaller(ProtoUtils.marshaller(
                                DynamicMessage.getDefaultInstance(method.getOutputType())))
                        .build();
        Metadata headers = new Metadata();
        headers.put(Metadata.Key.of("x-api-key", Metadata.ASCII_STRING_MARSHALLER), arguments[1]);
        ManagedChannel connection = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
        Channel channel = ClientInterceptors.intercept(
                connection, MetadataUtils.newAttachHeadersInterceptor(headers));
        try {
            Iterator<DynamicMessage> answers = method.isServerStreaming()
                    ? ClientCalls.blockingServerStreamingCall(channel, called, CallOptions.DEFAULT, request.build())
                    : List.of(ClientCalls.blockingUnaryCall(channel, called, CallOptions.DEFAULT, request.build()))
                            .iterator();
            while (answers.hasNext()) {
                JsonObject facts = new JsonObject();
                facts.addProperty("event", "message");
                facts.add("message", JsonParser.parseString(PRINTER.print(answers.next())));
                System.out.println(facts);
            }
            end(Status.OK, new Metadata());
        } catch (StatusRuntimeException error) {
            end(error.getStatus(), error.getTrailers());
        }
        System.exit(0);
    }

    private static void end(Status status, Metadata trailers) {
        JsonObject values = new JsonObject();
        if (trailers != null) {
            for (String name : trailers.keys()) {
                if (!name.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
                    values.addProperty(name, trailers.get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER)));
                }
            }
        }
        JsonObject facts = new JsonObject();
        facts.addProperty("event", "end");
        facts.addProperty("code", status.getCode().name());
        facts.addProperty("sentence", status.getDescription() == null ? "" : status.getDescription());
        facts.add("trailers", values);
        System.out.println(facts);
    }

    private static Descriptors.MethodDescriptor method(Path file, String name) throws Exception {
        List<FileDescriptor> files = new ArrayList<>();
        for (FileDescriptorProto proto : FileDescriptorSet.parseFrom(Files.readAllBytes(file)).getFileList()) {
            files.add(FileDescriptor.buildFrom(proto, files.toArray(new FileDescriptor[0])));
        }
        return files.get(files.size() - 1).findServiceByName("DataStream").findMethodByName(name);
    }
}
