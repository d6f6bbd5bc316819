/* HTTP/2 for a server, sans I/O: bytes in -> events, answers in -> bytes out.
 *
 * A thin layer on libnghttp2 that gathers headers and bodies, so that Python is entered once per request and not once
 * per frame. It opens no sockets, calls no Python, and knows nothing of gRPC but that bodies begin with the length of
 * their first message, which it takes as a hint for sizing a buffer. Everything is used from one thread.
 *
 * This file is also what cffi reads: plain declarations only.
 */

/* What happened to a stream during one h2_receive; several may be true of one event. */
enum {
    H2_HEAD = 1,      /* it is new: `head` has its header block */
    H2_BODY = 2,      /* `body` has what came since the last event with a body */
    H2_END = 4,       /* the peer will send no more */
    H2_TOO_LARGE = 8, /* it went over a limit; what it still sends is thrown away */
    H2_CLOSED = 16,   /* it was reset, or broke, before its answer was complete */
    H2_NO_ROOM = 32   /* as H2_TOO_LARGE, for the limit of all connections together */
};

typedef struct {
    int32_t stream_id;
    uint32_t flags;
    uint32_t error_code;  /* of H2_CLOSED: RFC 9113, section 7 */
    uint32_t head_offset; /* into h2_heads() */
    uint32_t head_length;
    uint32_t input_offset; /* of the body in the bytes just received, where `body` is NULL */
    uint64_t body_length;
    void *body; /* where not NULL: the body, now the caller's, to be released with h2_free */
} h2_event;

typedef struct {
    uint32_t max_concurrent_streams;
    uint32_t max_frame_size;
    uint32_t stream_window;
    uint32_t connection_window;
    uint32_t max_head_bytes;   /* of one header block, unpacked, as RFC 9113 counts; also announced to the peer */
    uint32_t max_idle_frames;  /* in a row that bring neither headers nor data, and get no data; PING does not count */
    uint64_t max_body_bytes;   /* of one stream's unread body */
    uint64_t max_held_bytes;   /* of all unread bodies, as long as they say they will be, and unsent answers of one
                                * connection */
    uint64_t max_shared_bytes; /* the same of all connections of the context, and of the caller: see h2_elsewhere */
    uint64_t small_bytes;      /* answers up to this size go out whatever the context holds */
} h2_limits;

/* How an answer can fail, besides nghttp2's errors, which are below -500. */
enum {
    H2_GONE = -1, /* there is no such stream, or it has been answered */
    H2_FULL = -2, /* the connection holds too much already */
    H2_SHORT = -3 /* all connections and the caller do */
};

typedef struct h2_context h2_context;       /* memory shared by connections; holds one call's events */
typedef struct h2_connection h2_connection; /* one peer */
typedef struct h2_headers h2_headers;       /* a header block to send */

h2_context *h2_context_new(void);
void h2_context_free(h2_context *);

/* A header block from `count` pairs, packed as in h2_heads(). NULL where memory is short. */
h2_headers *h2_headers_new(const char *packed, size_t length, size_t count);
void h2_headers_free(h2_headers *);

h2_connection *h2_connection_new(h2_context *, const h2_limits *);
void h2_connection_free(h2_connection *);

/* Take bytes from the peer. Returns the number of events, or a negative nghttp2 error after which the connection must
 * be closed, once h2_send has said why; events gathered before it are in h2_event_count(). They stay until the next
 * call on any connection. */
long h2_receive(h2_connection *, const uint8_t *data, size_t length);
/* Where the peer's next bytes may be read to so that they need not be copied: the rest of a large frame, straight into
 * the body that it belongs to. Returns how many at most, or 0: then they may be read anywhere. What was read must be the
 * `data` of the next call on this connection, which must be h2_receive. */
size_t h2_read_ahead(h2_connection *, uint8_t **where);
/* What was reserved for the large body that is being received, and not written to yet: its pages may be made elsewhere
 * meanwhile. Returns its length; 0 where there is none, or it was asked for before. */
size_t h2_unwritten(h2_connection *, uint8_t **where);
long h2_event_count(h2_context *);
h2_event *h2_events(h2_context *);

/* Header blocks of this call's events: for each header two native uint32 lengths, the name, the value. Where one is the
 * same as that of the event before which has one, it is there once. */
const char *h2_heads(h2_context *);
size_t h2_heads_length(h2_context *);

/* From now on, hand this stream's body over as it comes, not once when the peer has ended. The peer may then send no
 * more than a window ahead of h2_consume. What has already come is in an event of the next h2_receive, or at once in
 * `body`, which is the caller's to release. Returns the length of that body, or a negative number. */
int64_t h2_stream_body(h2_connection *, int32_t stream_id, void **body);
/* Let the peer of such a stream send as much again as has been handed over. */
int h2_consume(h2_connection *, int32_t stream_id);
/* Count this many bytes of such a body, unpacked or not, as held until told otherwise or the stream closes. Returns 0,
 * or H2_FULL or H2_SHORT where that is over a limit and was not done. */
int h2_keep(h2_connection *, int32_t stream_id, uint64_t length);

/* Answer a stream: `head` opens the answer, messages follow, `trailers` end it. NULL leaves the part for a later call;
 * a call with `head` and `trailers` and no message sends the two as one block. `prefix` and `body` are one message and
 * are copied. With `own_trailers`, the block is released when it is no longer needed, also where the call fails.
 * Where the peer has not ended when its answer has, it is told to stop. Returns 0, or a negative number; after H2_FULL
 * and H2_SHORT the stream can still be answered. */
int h2_answer(h2_connection *, int32_t stream_id, const h2_headers *head, const char *prefix, size_t prefix_length,
              const char *body, size_t body_length, h2_headers *trailers, int own_trailers);

/* Lend the body of an answer that is about to be given, by a call of h2_answer with its prefix and no body: it is sent
 * from where it lies, which must not change or go until h2_unsent_bytes of the stream is 0, or the connection is freed.
 * Returns 0, or as h2_answer does. */
int h2_lend(h2_connection *, int32_t stream_id, const char *body, size_t length);

/* Break a stream off with an error code. */
int h2_reset(h2_connection *, int32_t stream_id, uint32_t error_code);

/* Write what should be sent, up to `capacity` bytes. Returns the number written, 0 where nothing is due, or an error.
 * Streams that nghttp2 breaks off while it writes are events of this call, which replaces those of h2_receive. */
long h2_send(h2_connection *, char *output, size_t capacity);

int h2_ping(h2_connection *);
/* Announce the end: new streams are still taken (0), or refused from now on (1), with a word for the peer's log. */
int h2_goaway(h2_connection *, int final, uint32_t error_code, const char *debug, size_t debug_length);

/* Whether the protocol still has anything to do on this connection. */
int h2_alive(h2_connection *);
/* Whether h2_send would write something, or the connection has ended. */
int h2_due(h2_connection *);
/* PING frames received, frames sent that carry headers or data, and streams open now. */
uint32_t h2_pings(h2_connection *);
uint32_t h2_answer_frames(h2_connection *);
uint32_t h2_open_streams(h2_connection *);
/* Bytes of unread bodies and unsent answers, and bytes of one stream's answer that wait for the peer to make room. */
uint64_t h2_held_bytes(h2_connection *);
uint64_t h2_shared_bytes(h2_context *); /* the former of all connections */
void h2_elsewhere(h2_context *, uint64_t length); /* the caller holds so much besides: it counts to max_shared_bytes */
int64_t h2_unsent_bytes(h2_connection *, int32_t stream_id);

void h2_free(void *body);
const char *h2_error_text(long error);
