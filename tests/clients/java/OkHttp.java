// Opens one event stream with okhttp-sse, or one WebSocket with okhttp, and prints what it delivers, one JSON document a
// line: java OkHttp URL. A WebSocket sends the key in CLIENT_KEY.
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocket;
import okhttp3.WebSocketListener;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

public class OkHttp extends EventSourceListener {
    private final OkHttpClient client = new OkHttpClient();
    private final String url;
    private String lastId;

    OkHttp(String url) {
        this.url = url;
    }

    public static void main(String[] arguments) {
        new OkHttp(arguments[0]).open();
    }

    private void open() {
        if (url.startsWith("ws:")) {
            openWebSocket();
            return;
        }
        Request.Builder request = new Request.Builder().url(url);
        if (lastId != null) request.header("Last-Event-ID", lastId);
        EventSources.createFactory(client).newEventSource(request.build(), this);
    }

    private void openWebSocket() {
        Request request = new Request.Builder().url(url).header("X-API-Key", System.getenv("CLIENT_KEY")).build();
        client.newWebSocket(request, new WebSocketListener() {
            @Override
            public void onOpen(WebSocket socket, Response response) {
                say("open", String.valueOf(response.header("Sec-WebSocket-Extensions")), "");
            }

            @Override
            public void onMessage(WebSocket socket, String text) {
                say("message", text, "");
            }

            @Override
            public void onFailure(WebSocket socket, Throwable error, Response response) {
                say("failed", String.valueOf(error), "");
            }
        });
    }

    @Override
    public void onEvent(EventSource source, String id, String type, String data) {
        if (id != null) lastId = id;
        say(type == null ? "message" : type, data, lastId);
    }

    @Override
    public void onClosed(EventSource source) {
        again("the stream ended");
    }

    @Override
    public void onFailure(EventSource source, Throwable error, Response response) {
        again(String.valueOf(error));
    }

    private void again(String reason) {
        say("comes_back", reason, lastId);
        try {
            Thread.sleep(100);
        } catch (InterruptedException error) {
            return;
        }
        open();
    }

    private static void say(String event, String data, String id) {
        String text = data.replace("\\", "\\\\").replace("\"", "\\\"");
        System.out.println("{\"event\":\"" + event + "\",\"data\":\"" + text + "\",\"lastEventId\":\"" + id + "\"}");
    }
}
