// Calls one method with tonic. tonic-client ADDRESS KEY DESCRIPTORS METHOD REQUEST_AS_JSON
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{json, Map, Value};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

struct Dynamic(MessageDescriptor);
struct Encode;
struct Decode(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Encode;
    type Decoder = Decode;

    fn encoder(&mut self) -> Encode {
        Encode
    }

    fn decoder(&mut self) -> Decode {
        Decode(self.0.clone())
    }
}

impl Encoder for Encode {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Decode {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, file, name, request] = arguments.as_slice() else {
        panic!("five arguments are needed")
    };
    let pool = DescriptorPool::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
    let service = pool.get_service_by_name("datastream.DataStream").unwrap();
    let method = service.methods().find(|method| method.name() == name).unwrap();
    let mut json = serde_json::Deserializer::from_str(request);
    let asked = DynamicMessage::deserialize(method.input(), &mut json).unwrap();

    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let mut calling = Request::new(asked);
    calling.metadata_mut().insert("x-api-key", key.parse().unwrap());
    let path = format!("/datastream.DataStream/{name}").parse().unwrap();
    let codec = Dynamic(method.output());
    let ended = if method.is_server_streaming() {
        match client.server_streaming(calling, path, codec).await {
            Ok(answer) => follow(answer.into_inner()).await,
            Err(status) => Err(status),
        }
    } else {
        client.unary(calling, path, codec).await.map(|answer| show(answer.get_ref()))
    };
    let status = ended.err().unwrap_or_else(|| Status::new(Code::Ok, ""));
    let mut trailers = Map::new();
    for (name, value) in status.metadata().clone().into_headers().iter() {
        trailers.insert(name.to_string(), json!(value.to_str().unwrap_or_default()));
    }
    let code = format!("{:?}", status.code());
    println!("{}", json!({"event": "end", "code": code, "sentence": status.message(), "trailers": trailers}));
}

async fn follow(mut answers: tonic::Streaming<DynamicMessage>) -> Result<(), Status> {
    while let Some(answer) = answers.message().await? {
        show(&answer);
    }
    Ok(())
}

fn show(answer: &DynamicMessage) {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value: Value = answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
    println!("{}", json!({"event": "message", "message": value}));
}
