/* See http2_shim.h for the contract. Rules of this file:
 * - A body is in one of three places: nowhere, a span of the bytes being received (never beyond the call), or the heap.
 * - Whatever one peer can make grow has a limit, and the limit is checked before memory is taken.
 * - A callback fails only where memory is short; a peer's mistakes are events or nghttp2's business. */
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "http2_shim.h"

/* nghttp2 has it since 1.57, and Debian in what it calls 1.52. */
extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *, uint64_t, uint64_t) __attribute__((weak));
/* Since 1.50. Without it, streams with a space at the end of a value are reset. */
extern void nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(nghttp2_option *, int)
    __attribute__((weak));

#define NO_EVENT 0
#define PREFIX_BYTES 5
#define FIRST_BODY_BYTES 16384
#define HUGE_PAGES_BYTES (4u << 20)
#define PAGE_BYTES 4096
#ifndef DIRECT_BYTES /* tests read ahead for less */
#define DIRECT_BYTES 65536 /* of a frame's rest: less is not worth a read of its own */
#endif
#define FIELD_BYTES 32              /* what RFC 9113, 6.5.2 adds to each header's size */
#define HOPELESS_HEADS 4            /* at so many times the limit, a header block is not even read to its end */
#define KEPT_HEAD_BYTES (256u << 10)
/* Calls that a peer may cancel at once, and in each second: who hedges cancels half of what he asks for, and who floods
 * cancels tens of thousands. nghttp2's own are 1000 and 33. */
#define RESET_BURST 4000
#define RESETS_PER_SECOND 1000

struct h2_headers {
    size_t count;
    nghttp2_nv pairs[];
};

typedef struct {
    char *data;
    size_t length, capacity;
} bytes;

struct h2_context {
    h2_event *events;
    size_t event_count, event_capacity;
    bytes heads;
    uint32_t last_head, last_head_length; /* where in them the block of the latest new stream is */
    uint64_t held;        /* the sum of its connections' */
    uint64_t elsewhere;   /* what the caller holds besides, as it last said */
};

typedef struct stream {
    struct stream *next, *previous; /* of the connection; nghttp2 has no way to list them that lasts */
    int32_t id;
    uint8_t told;         /* its head has been given out */
    uint8_t streaming;    /* bodies are given out as they come */
    uint8_t ended;        /* by the peer */
    uint8_t refused;      /* over a limit: bodies are thrown away */
    uint8_t answering, out_ended, own_trailers, finished;
    uint8_t unwritten_told; /* h2_unwritten has */
    size_t event;         /* 1 + its event in this call, NO_EVENT for none yet */
    size_t waiting;       /* 1 + its place in the connection's list of streams to look at after the call, or 0 */
    uint32_t head_offset, head_length;
    size_t head_size;     /* of all headers that came, kept or not, as RFC 9113 counts them */
    const uint8_t *span;  /* of the bytes being received */
    size_t span_length;
    bytes body;
    bytes out;
    size_t out_sent;
    const char *lent;     /* what follows `out`, and is the caller's; NULL once all of it is sent */
    size_t lent_length, lent_sent;
    size_t unconsumed;    /* of a streamed body: what the peer's window still lacks */
    uint64_t kept;        /* of a streamed body: what the caller holds of it */
    uint64_t promised;    /* what counts as held for the body: what has come, or more where more was announced */
    h2_headers *trailers;
} stream;

struct h2_connection {
    h2_context *context;
    nghttp2_session *session;
    h2_limits limits;
    const uint8_t *input;
    stream *streams;
    stream *open_head;    /* whose header block is being received, or was when nghttp2 gave it up */
    bytes partial_head;   /* what of it came in earlier calls; empty during a call */
    stream **waiting;     /* NULL in place of one that has closed */
    size_t waiting_count, waiting_capacity;
    const uint8_t *unsent;
    size_t unsent_length;
    uint64_t held;        /* bytes of unread bodies and of unsent answers */
    uint32_t pings, answer_frames, open_streams, idle_frames;
    uint32_t unended;     /* of the open streams: those that their peer has not ended */
    int32_t data_id;      /* the stream of the DATA frame that is being received, and what of it is still to come */
    size_t data_left;
};

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* A buffer that is filled once costs a page fault for each of its pages. Large pages are cleared faster, too. */
static void ask_for_huge_pages(char *data, size_t length) {
#ifdef MADV_HUGEPAGE
    size_t offset = -(uintptr_t)data & (PAGE_BYTES - 1);
    madvise(data + offset, length - offset, MADV_HUGEPAGE); /* where there are none, nothing is lost */
#else
    (void)data, (void)length;
#endif
}

static int reserve(bytes *b, size_t capacity) {
    if (capacity <= b->capacity) return 0;
    char *data = realloc(b->data, capacity);
    if (!data) return -1;
    if (capacity >= HUGE_PAGES_BYTES) ask_for_huge_pages(data, capacity);
    b->data = data;
    b->capacity = capacity;
    return 0;
}

static int append(bytes *b, const void *data, size_t length) {
    if (b->length + length > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 256;
        while (capacity < b->length + length) capacity *= 2;
        if (reserve(b, capacity)) return -1;
    }
    if (length) memcpy(b->data + b->length, data, length);
    b->length += length;
    return 0;
}

static void release(bytes *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

static stream *find(h2_connection *c, int32_t id) { return nghttp2_session_get_stream_user_data(c->session, id); }

static int connection_has_room(const h2_connection *c, uint64_t length) {
    return c->held + length <= c->limits.max_held_bytes;
}

static int all_have_room(const h2_connection *c, uint64_t length) {
    return c->context->held + c->context->elsewhere + length <= c->limits.max_shared_bytes;
}

static int has_room(const h2_connection *c, uint64_t length) {
    return connection_has_room(c, length) && all_have_room(c, length);
}

static void hold(h2_connection *c, uint64_t length) {
    c->held += length;
    c->context->held += length;
}

static void let_go(h2_connection *c, uint64_t length) {
    c->held -= length;
    c->context->held -= length;
}

static void drop_body(h2_connection *c, stream *s) {
    let_go(c, s->promised);
    s->promised = 0;
    release(&s->body);
    s->span = NULL;
    s->span_length = 0;
}

/* What of the memory that is counted its answer takes: a lent block is memory as a whole until its last byte is sent. */
static size_t held_by_answer(const stream *s) {
    return s->out.length - s->out_sent + (s->lent ? s->lent_length : 0);
}

static size_t unsent(const stream *s) {
    return s->out.length - s->out_sent + (s->lent ? s->lent_length - s->lent_sent : 0);
}

static void free_stream(h2_connection *c, stream *s) {
    if (s->previous) s->previous->next = s->next;
    else c->streams = s->next;
    if (s->next) s->next->previous = s->previous;
    if (s->waiting) c->waiting[s->waiting - 1] = NULL;
    if (s == c->open_head) c->open_head = NULL;
    c->open_streams--;
    c->unended -= !s->ended;
    drop_body(c, s);
    let_go(c, held_by_answer(s) + s->kept);
    release(&s->out);
    if (s->own_trailers) h2_headers_free(s->trailers);
    free(s);
}

/* Have the stream looked at after the call: its span kept or given out, its event forgotten. */
static int look_later(h2_connection *c, stream *s) {
    if (s->waiting) return 0;
    if (c->waiting_count == c->waiting_capacity) {
        size_t capacity = c->waiting_capacity ? 2 * c->waiting_capacity : 16;
        stream **waiting = realloc(c->waiting, capacity * sizeof *waiting);
        if (!waiting) return -1;
        c->waiting = waiting;
        c->waiting_capacity = capacity;
    }
    c->waiting[c->waiting_count++] = s;
    s->waiting = c->waiting_count;
    return 0;
}

static h2_event *event_of(h2_connection *c, stream *s) {
    h2_context *x = c->context;
    if (s->event != NO_EVENT) return &x->events[s->event - 1];
    if (look_later(c, s)) return NULL;
    if (x->event_count == x->event_capacity) {
        size_t capacity = x->event_capacity ? 2 * x->event_capacity : 64;
        h2_event *events = realloc(x->events, capacity * sizeof *events);
        if (!events) return NULL;
        x->events = events;
        x->event_capacity = capacity;
    }
    h2_event *event = &x->events[x->event_count++];
    memset(event, 0, sizeof *event);
    event->stream_id = s->id;
    s->event = x->event_count;
    if (!s->told) {
        s->told = 1;
        event->flags |= H2_HEAD;
        event->head_offset = s->head_offset;
        event->head_length = s->head_length;
    }
    return event;
}

/* --- bodies ----------------------------------------------------------------------------------------------------- */

static int refuse(h2_connection *c, stream *s, uint32_t why) {
    drop_body(c, s);
    s->refused = 1;
    h2_event *event = event_of(c, s);
    if (!event) return -1;
    event->flags |= why;
    return 0;
}

/* How long the first message says that it is, prefix included; 0 while too little of it has come. */
static uint64_t announced_length(const stream *s, const uint8_t *next, size_t more) {
    uint64_t announced = 0;
    if (s->body.length + more < PREFIX_BYTES) return 0;
    for (size_t i = 1, had = s->body.length; i < PREFIX_BYTES; i++)
        announced = announced << 8 | (i < had ? (uint8_t)s->body.data[i] : next[i - had]);
    return announced + PREFIX_BYTES;
}

/* Room for `more` bytes: for all that the first message says it needs, where the limits allow it. What of it is never
 * written to takes no memory, and growing a large buffer means to copy it. */
static int make_room(stream *s, const uint8_t *next, size_t more, uint64_t limit) {
    size_t needed = s->body.length + more;
    if (needed <= s->body.capacity) return 0;
    uint64_t announced = announced_length(s, next, more);
    size_t capacity = announced && announced <= limit ? announced : FIRST_BODY_BYTES;
    if (capacity < needed) capacity = 2 * needed;
    return reserve(&s->body, capacity);
}

/* Move the span, which ends with this call, to the heap. */
static int keep_span(h2_connection *c, stream *s) {
    if (!s->span) return 0;
    const uint8_t *span = s->span;
    size_t length = s->span_length;
    s->span = NULL;
    s->span_length = 0;
    uint64_t needed = s->body.length + length;
    uint64_t announced = s->streaming ? 0 : announced_length(s, span, length);
    if (announced > c->limits.max_body_bytes) return refuse(c, s, H2_TOO_LARGE);
    if (announced > needed) needed = announced; /* what cannot come whole should not come at all */
    if (needed > s->promised) {
        uint64_t more = needed - s->promised;
        if (!connection_has_room(c, more)) return refuse(c, s, H2_TOO_LARGE);
        if (!all_have_room(c, more)) return refuse(c, s, H2_NO_ROOM);
        hold(c, more);
        s->promised = needed;
    }
    if (make_room(s, span, length, c->limits.max_body_bytes)) return -1;
    if (span != (const uint8_t *)s->body.data + s->body.length) /* else h2_read_ahead has had it put there */
        memcpy(s->body.data + s->body.length, span, length);
    s->body.length += length;
    return 0;
}

static int give_body(h2_connection *c, stream *s) {
    if (s->refused) return 0;
    if (!s->body.length && !s->span) return 0;
    if (s->body.length && keep_span(c, s)) return -1;
    if (s->refused) return 0;
    h2_event *event = event_of(c, s);
    if (!event) return -1;
    event->flags |= H2_BODY;
    if (s->body.length) {
        event->body = s->body.data;
        event->body_length = s->body.length;
        let_go(c, s->promised);
        s->promised = 0;
        memset(&s->body, 0, sizeof s->body);
    } else {
        event->input_offset = (uint32_t)(s->span - c->input);
        event->body_length = s->span_length;
        s->span = NULL;
        s->span_length = 0;
    }
    return 0;
}

static int end_of_input(h2_connection *c, stream *s) {
    c->unended -= !s->ended;
    s->ended = 1;
    if (give_body(c, s)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    h2_event *event = event_of(c, s);
    if (!event) return NGHTTP2_ERR_CALLBACK_FAILURE;
    event->flags |= H2_END;
    return 0;
}

/* --- nghttp2's callbacks ---------------------------------------------------------------------------------------- */

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user_data) {
    h2_connection *c = user_data;
    (void)session;
    c->data_id = hd->stream_id;
    c->data_left = hd->type == NGHTTP2_DATA && !(hd->flags & NGHTTP2_FLAG_PADDED) ? hd->length : 0;
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
    h2_connection *c = user_data;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    stream *s = calloc(1, sizeof *s);
    if (!s) return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->id = frame->hd.stream_id;
    s->head_offset = (uint32_t)c->context->heads.length;
    s->next = c->streams;
    if (s->next) s->next->previous = s;
    c->streams = s;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    c->open_head = s;
    c->open_streams++;
    c->unended++;
    return 0;
}

/* Values begin and end with no white space (RFC 9113, 8.2.1), but some clients hand on what stood behind a colon, as
 * HTTP/1 let them: it is no part of the value there either. */
static void trim(const uint8_t **value, size_t *length) {
    while (*length && (**value == ' ' || **value == '\t')) ++*value, --*length;
    while (*length && ((*value)[*length - 1] == ' ' || (*value)[*length - 1] == '\t')) --*length;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data) {
    h2_connection *c = user_data;
    stream *s = c->open_head;
    (void)session;
    (void)flags;
    if (!s || s->id != frame->hd.stream_id) return 0; /* the peer's trailers say nothing to a server */
    bytes *heads = &c->context->heads;
    s->head_size += name_length + value_length + FIELD_BYTES;
    if (s->head_size > c->limits.max_head_bytes) {
        heads->length = s->head_offset;
        s->refused = 1;
        /* A compressed block of a megabyte may unpack to gigabytes: past this nghttp2 resets the stream, and no longer
         * looks at each header. */
        return s->head_size / HOPELESS_HEADS > c->limits.max_head_bytes ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
    }
    trim(&value, &value_length);
    uint32_t lengths[2] = {(uint32_t)name_length, (uint32_t)value_length};
    if (append(heads, lengths, sizeof lengths) || append(heads, name, name_length) ||
        append(heads, value, value_length))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

/* The header block that has just come is mostly that of the stream before: then it is given out as the same bytes. */
static void share_head(h2_context *x, stream *s) {
    if (s->head_length && s->head_length == x->last_head_length &&
        !memcmp(x->heads.data + s->head_offset, x->heads.data + x->last_head, s->head_length)) {
        x->heads.length = s->head_offset;
        s->head_offset = x->last_head;
    }
    x->last_head = s->head_offset;
    x->last_head_length = s->head_length;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
    h2_connection *c = user_data;
    (void)session;
    if (frame->hd.type == NGHTTP2_PING) {
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) c->pings++;
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS || (frame->hd.type == NGHTTP2_DATA && frame->hd.length))
        c->idle_frames = 0;
    else if (frame->hd.type != NGHTTP2_RST_STREAM) /* of which nghttp2 keeps count */
        c->idle_frames++;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    stream *s = find(c, frame->hd.stream_id);
    if (!s) return 0;
    if (s == c->open_head) {
        c->open_head = NULL;
        s->head_length = (uint32_t)(c->context->heads.length - s->head_offset);
        share_head(c->context, s);
        h2_event *event = event_of(c, s);
        if (!event) return NGHTTP2_ERR_CALLBACK_FAILURE;
        if (s->refused) event->flags |= H2_TOO_LARGE;
    }
    return frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? end_of_input(c, s) : 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length,
                   void *user_data) {
    h2_connection *c = user_data;
    stream *s = find(c, id);
    (void)flags;
    c->data_left -= length < c->data_left ? length : c->data_left;
    if (nghttp2_session_consume_connection(session, length)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (s && s->streaming)
        s->unconsumed += length;
    else if (nghttp2_session_consume_stream(session, id, length))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s || s->refused || s->out_ended || !length) return 0;
    if (s->body.length + s->span_length + length > c->limits.max_body_bytes)
        return refuse(c, s, H2_TOO_LARGE) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    if (keep_span(c, s)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (s->refused) return 0;
    s->span = data;
    s->span_length = length;
    if (s->body.length && keep_span(c, s)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    return look_later(c, s) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data) {
    h2_connection *c = user_data;
    stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (!s) return 0;
    int failed = 0;
    if (s->told && !s->finished) {
        h2_event *event = event_of(c, s);
        if (event) {
            event->flags |= H2_CLOSED;
            event->error_code = error_code;
        }
        failed = !event;
    }
    free_stream(c, s);
    nghttp2_session_set_stream_user_data(session, id, NULL);
    return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* Where an answer is complete and the peer is not, it may stop: nobody will read the rest (RFC 9113, 8.1). */
static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
    h2_connection *c = user_data;
    if (frame->hd.type != NGHTTP2_HEADERS) return 0;
    c->answer_frames++;
    if (!c->unended || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    stream *s = find(c, frame->hd.stream_id);
    if (!s || s->ended) return 0;
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
}

/* An answer that cannot be said, since its headers are too large, must not leave the peer waiting. */
static int on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data) {
    (void)user_data;
    if (frame->hd.type != NGHTTP2_HEADERS || error != NGHTTP2_ERR_FRAME_SIZE_ERROR) return 0;
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
}

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                           nghttp2_data_source *source, void *user_data) {
    stream *s = source->ptr;
    h2_connection *c = user_data;
    size_t left = s->out.length - s->out_sent;
    size_t taken = left < length ? left : length;
    if (taken) memcpy(buffer, s->out.data + s->out_sent, taken);
    s->out_sent += taken;
    let_go(c, taken);
    if (s->lent && taken < length) {
        size_t rest = s->lent_length - s->lent_sent;
        size_t more = rest < length - taken ? rest : length - taken;
        memcpy(buffer + taken, s->lent + s->lent_sent, more);
        s->lent_sent += more;
        taken += more;
        if (more == rest) {
            s->lent = NULL;
            let_go(c, s->lent_length);
        }
    }
    if (taken) {
        c->answer_frames++;
        c->idle_frames = 0;
    }
    if (s->out_sent == s->out.length && !s->lent) {
        release(&s->out);
        s->out_sent = 0;
        if (s->out_ended) {
            *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(session, id, s->trailers->pairs, s->trailers->count))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
            s->finished = 1;
        } else if (!taken) {
            return NGHTTP2_ERR_DEFERRED;
        }
    }
    return (ssize_t)taken;
}

/* --- the contract ----------------------------------------------------------------------------------------------- */

h2_context *h2_context_new(void) { return calloc(1, sizeof(h2_context)); }

void h2_context_free(h2_context *x) {
    free(x->events);
    release(&x->heads);
    free(x);
}

h2_headers *h2_headers_new(const char *packed, size_t length, size_t count) {
    h2_headers *h = malloc(sizeof *h + count * sizeof(nghttp2_nv) + length);
    if (!h) return NULL;
    uint8_t *copy = (uint8_t *)(h->pairs + count);
    if (length) memcpy(copy, packed, length);
    h->count = count;
    for (size_t i = 0; i < count; i++) {
        uint32_t lengths[2];
        memcpy(lengths, copy, sizeof lengths);
        copy += sizeof lengths;
        h->pairs[i] = (nghttp2_nv){copy, copy + lengths[0], lengths[0], lengths[1], NGHTTP2_NV_FLAG_NONE};
        copy += lengths[0] + lengths[1];
    }
    return h;
}

void h2_headers_free(h2_headers *h) { free(h); }

h2_connection *h2_connection_new(h2_context *context, const h2_limits *limits) {
    h2_connection *c = calloc(1, sizeof *c);
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    if (!c || nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) goto fail;
    c->context = context;
    c->limits = *limits;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_not_sent);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_no_auto_window_update(option, 1);
    if (nghttp2_option_set_stream_reset_rate_limit)
        nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESETS_PER_SECOND);
    if (nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation)
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1);
    if (nghttp2_session_server_new2(&c->session, callbacks, c, option)) goto fail;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits->stream_window},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, limits->max_frame_size},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->max_head_bytes},
    };
    if (nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)limits->connection_window))
        goto fail;
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return c;
fail:
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    if (c) nghttp2_session_del(c->session);
    free(c);
    return NULL;
}

void h2_connection_free(h2_connection *c) {
    while (c->streams) free_stream(c, c->streams); /* nghttp2_session_del tells of no streams */
    nghttp2_session_del(c->session);
    release(&c->partial_head);
    free(c->waiting);
    free(c);
}

/* After a call: what lies in the received bytes is kept or given out, and events are forgotten. */
static int settle_waiting(h2_connection *c) {
    int failed = 0;
    for (size_t i = 0; i < c->waiting_count; i++) {
        stream *s = c->waiting[i];
        if (!s) continue;
        if (!failed) failed = s->streaming && s->told ? give_body(c, s) : keep_span(c, s);
        s->span = NULL;
        s->span_length = 0;
        s->event = NO_EVENT;
        s->waiting = 0;
    }
    c->waiting_count = 0;
    return failed;
}

/* What to tell the peer of an nghttp2 error that ends the connection. */
static uint32_t reason_of(long error) {
    if (error == NGHTTP2_ERR_BAD_CLIENT_MAGIC) return NGHTTP2_PROTOCOL_ERROR;
    if (error == NGHTTP2_ERR_NOMEM || error == NGHTTP2_ERR_CALLBACK_FAILURE) return NGHTTP2_INTERNAL_ERROR;
    return NGHTTP2_ENHANCE_YOUR_CALM; /* floods of various kinds */
}

long h2_receive(h2_connection *c, const uint8_t *data, size_t length) {
    h2_context *x = c->context;
    long result;
    x->event_count = 0;
    x->heads.length = 0;
    x->last_head_length = 0;
    if (x->heads.capacity > KEPT_HEAD_BYTES) release(&x->heads);
    c->input = data;
    if (c->open_head) { /* its first headers came in an earlier call */
        c->open_head->head_offset = 0;
        result = append(&x->heads, c->partial_head.data, c->partial_head.length) ? NGHTTP2_ERR_NOMEM : 0;
        if (result) goto broken;
    }
    if (c->partial_head.data) release(&c->partial_head); /* also of a stream that has closed since */
    result = (long)nghttp2_session_mem_recv(c->session, data, length);
    if (settle_waiting(c)) result = NGHTTP2_ERR_NOMEM;
    if (c->open_head && x->heads.length > c->open_head->head_offset) {
        uint32_t start = c->open_head->head_offset;
        if (append(&c->partial_head, x->heads.data + start, x->heads.length - start)) result = NGHTTP2_ERR_NOMEM;
    }
    if (result < 0) goto broken;
    if (c->idle_frames > c->limits.max_idle_frames)
        nghttp2_session_terminate_session(c->session, NGHTTP2_ENHANCE_YOUR_CALM);
    return (long)x->event_count;
broken:
    nghttp2_session_terminate_session(c->session, reason_of(result));
    return result;
}

size_t h2_read_ahead(h2_connection *c, uint8_t **where) {
    if (c->data_left < DIRECT_BYTES) return 0;
    stream *s = find(c, c->data_id);
    if (!s || s->streaming || s->refused || s->out_ended || s->body.length < PREFIX_BYTES) return 0;
    uint64_t needed = s->body.length + c->data_left;
    if (needed > c->limits.max_body_bytes) return 0;
    if (needed > s->promised && !has_room(c, needed - s->promised)) return 0;
    if (make_room(s, NULL, c->data_left, c->limits.max_body_bytes)) return 0;
    *where = (uint8_t *)s->body.data + s->body.length;
    return c->data_left;
}

size_t h2_unwritten(h2_connection *c, uint8_t **where) {
    stream *s = find(c, c->data_id);
    if (!s || s->unwritten_told || s->body.capacity < HUGE_PAGES_BYTES) return 0;
    s->unwritten_told = 1;
    *where = (uint8_t *)s->body.data + s->body.length;
    return s->body.capacity - s->body.length;
}

long h2_event_count(h2_context *x) { return (long)x->event_count; }
h2_event *h2_events(h2_context *x) { return x->events; }
const char *h2_heads(h2_context *x) { return x->heads.data; }
size_t h2_heads_length(h2_context *x) { return x->heads.length; }

int64_t h2_stream_body(h2_connection *c, int32_t id, void **body) {
    stream *s = find(c, id);
    *body = NULL;
    if (!s) return -1;
    int64_t length = (int64_t)s->body.length;
    s->streaming = 1;
    *body = s->body.data;
    let_go(c, s->promised);
    s->promised = 0;
    memset(&s->body, 0, sizeof s->body);
    return length;
}

int h2_consume(h2_connection *c, int32_t id) {
    stream *s = find(c, id);
    if (!s || !s->unconsumed) return 0;
    size_t length = s->unconsumed;
    s->unconsumed = 0;
    return nghttp2_session_consume_stream(c->session, id, length);
}

int h2_keep(h2_connection *c, int32_t id, uint64_t length) {
    stream *s = find(c, id);
    if (!s || s->kept == length) return 0;
    if (length > s->kept && !connection_has_room(c, length - s->kept)) return H2_FULL;
    if (length > s->kept && !all_have_room(c, length - s->kept)) return H2_SHORT;
    let_go(c, s->kept);
    hold(c, length);
    s->kept = length;
    return 0;
}

int h2_answer(h2_connection *c, int32_t id, const h2_headers *head, const char *prefix, size_t prefix_length,
                  const char *body, size_t body_length, h2_headers *trailers, int own_trailers) {
    stream *s = find(c, id);
    size_t length = prefix_length + body_length;
    int result = H2_GONE;
    if (!s || s->out_ended || !head == !s->answering) goto fail;
    result = NGHTTP2_ERR_NOMEM;
    if (length) {
        if (!connection_has_room(c, length)) result = H2_FULL;
        else if (length > c->limits.small_bytes && !all_have_room(c, length)) result = H2_SHORT;
        if (result == H2_FULL || result == H2_SHORT) goto fail;
        if (s->out_sent > s->out.length / 2) { /* a reader that never quite catches up */
            s->out.length -= s->out_sent;
            memmove(s->out.data, s->out.data + s->out_sent, s->out.length);
            s->out_sent = 0;
        }
        if (!s->out.length && reserve(&s->out, length)) goto fail;
        if (append(&s->out, prefix, prefix_length)) goto fail;
        if (append(&s->out, body, body_length)) {
            s->out.length -= prefix_length;
            goto fail;
        }
        hold(c, length);
    }
    if (trailers) {
        s->trailers = trailers;
        s->own_trailers = (uint8_t)own_trailers;
        s->out_ended = 1;
        own_trailers = 0;
        drop_body(c, s);
    }
    if (head && trailers && !length) {
        h2_headers *both = malloc(sizeof *both + (head->count + trailers->count) * sizeof(nghttp2_nv));
        if (!both) goto fail;
        memcpy(both->pairs, head->pairs, head->count * sizeof(nghttp2_nv));
        memcpy(both->pairs + head->count, trailers->pairs, trailers->count * sizeof(nghttp2_nv));
        int failed = nghttp2_submit_response(c->session, id, both->pairs, head->count + trailers->count, NULL);
        free(both);
        if (failed) goto fail;
        s->finished = 1;
        return 0;
    }
    if (head) {
        nghttp2_data_provider provider = {.source.ptr = s, .read_callback = read_answer};
        if (nghttp2_submit_response(c->session, id, head->pairs, head->count, &provider)) goto fail;
        s->answering = 1;
    } else {
        nghttp2_session_resume_data(c->session, id); /* fails where nothing was deferred, which is as good */
    }
    return 0;
fail:
    if (own_trailers) h2_headers_free(trailers);
    return result;
}

int h2_lend(h2_connection *c, int32_t id, const char *body, size_t length) {
    stream *s = find(c, id);
    if (!s || s->out_ended || s->answering || s->lent) return H2_GONE;
    if (!connection_has_room(c, length)) return H2_FULL;
    if (!all_have_room(c, length)) return H2_SHORT;
    s->lent = body;
    s->lent_length = length;
    s->lent_sent = 0;
    hold(c, length);
    return 0;
}

int h2_reset(h2_connection *c, int32_t id, uint32_t error_code) {
    stream *s = find(c, id);
    if (!s) return H2_GONE;
    s->finished = 1; /* its end is the caller's own wish: no event */
    drop_body(c, s);
    return nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, error_code);
}

long h2_send(h2_connection *c, char *output, size_t capacity) {
    size_t written = 0;
    c->context->event_count = 0;
    while (written < capacity) {
        if (!c->unsent_length) {
            ssize_t length = nghttp2_session_mem_send(c->session, &c->unsent);
            c->waiting_count = 0; /* all that had events have closed */
            if (length < 0) return (long)length;
            if (!length) break;
            c->unsent_length = (size_t)length;
        }
        size_t taken = c->unsent_length < capacity - written ? c->unsent_length : capacity - written;
        memcpy(output + written, c->unsent, taken);
        written += taken;
        c->unsent += taken;
        c->unsent_length -= taken;
    }
    return (long)written;
}

int h2_ping(h2_connection *c) { return nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL); }

int h2_goaway(h2_connection *c, int final, uint32_t error_code, const char *debug, size_t debug_length) {
    if (!final) return nghttp2_submit_shutdown_notice(c->session);
    int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
    return nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, error_code, (const uint8_t *)debug,
                                 debug_length);
}

int h2_alive(h2_connection *c) {
    return c->unsent_length || nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session);
}

int h2_due(h2_connection *c) {
    return c->unsent_length || nghttp2_session_want_write(c->session) || !nghttp2_session_want_read(c->session);
}

uint32_t h2_pings(h2_connection *c) { return c->pings; }
uint32_t h2_answer_frames(h2_connection *c) { return c->answer_frames; }
uint32_t h2_open_streams(h2_connection *c) { return c->open_streams; }
uint64_t h2_held_bytes(h2_connection *c) { return c->held; }
uint64_t h2_shared_bytes(h2_context *x) { return x->held; }
void h2_elsewhere(h2_context *x, uint64_t length) { x->elsewhere = length; }

int64_t h2_unsent_bytes(h2_connection *c, int32_t id) {
    stream *s = find(c, id);
    return s ? (int64_t)unsent(s) : 0;
}

void h2_free(void *body) { free(body); }
const char *h2_error_text(long error) { return nghttp2_strerror((int)error); }
