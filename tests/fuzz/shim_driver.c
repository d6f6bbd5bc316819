/* Plays what peers have sent, cut and mangled, into http2_shim.c, and answers at random. Compiled with sanitizers, which
 * do the judging, together with the checks below; allocations of the shim fail now and then. Run as
 *     shim_driver SEED RUNS FILE...
 * or linked with libFuzzer (-DLIBFUZZER), whose inputs then say what is sent and what is done with it. */
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state;
static int allocations_fail;

static uint32_t dice(uint32_t sides) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % sides;
}

static int out_of_memory(void) { return allocations_fail && !dice(50); }
static void *mean_malloc(size_t size) { return out_of_memory() ? NULL : malloc(size); }
static void *mean_calloc(size_t count, size_t size) { return out_of_memory() ? NULL : calloc(count, size); }
static void *mean_realloc(void *old, size_t size) { return out_of_memory() ? NULL : realloc(old, size); }

#define malloc mean_malloc
#define calloc mean_calloc
#define realloc mean_realloc
#define DIRECT_BYTES 16
#include "http2_shim.c"
#undef malloc
#undef calloc
#undef realloc

#define check(condition) \
    do { \
        if (!(condition)) fprintf(stderr, "line %d: %s\n", __LINE__, #condition), abort(); \
    } while (0)

#define STREAMS 64 /* ids up to twice this are watched */
enum { UNSEEN, SEEN, OVER };

typedef struct {
    uint8_t state[STREAMS];
    int32_t recent;
} peer;

static const char ANSWER[300] = "an answer";
static volatile uint8_t touched;

static void touch(const void *data, uint64_t length) {
    for (uint64_t i = 0; i < length; i++) touched ^= ((const uint8_t *)data)[i];
}

static h2_headers *block(const char *name, const char *value) {
    char packed[128];
    uint32_t lengths[2] = {(uint32_t)strlen(name), (uint32_t)strlen(value)};
    memcpy(packed, lengths, sizeof lengths);
    memcpy(packed + 8, name, lengths[0]);
    memcpy(packed + 8 + lengths[0], value, lengths[1]);
    return h2_headers_new(packed, 8 + lengths[0] + lengths[1], 1);
}

static void act(h2_connection *c, int32_t id) {
    static const uint8_t codes[] = {0, 2, 8, 11};
    h2_headers *head = block(":status", "200"), *trailers = block("grpc-status", "0");
    void *body = NULL;
    int64_t length;
    switch (head && trailers ? dice(9) : 9) {
    case 0: h2_answer(c, id, head, "\0\0\0\0\3", 5, "yes", 3, trailers, 0); break;
    case 1: h2_answer(c, id, head, NULL, 0, NULL, 0, trailers, 1), trailers = NULL; break;
    case 2: h2_answer(c, id, head, NULL, 0, NULL, 0, NULL, 0); break;
    case 3: h2_answer(c, id, NULL, ANSWER, 5, ANSWER, dice(sizeof ANSWER), NULL, 0); break;
    case 4: h2_answer(c, id, NULL, NULL, 0, ANSWER, dice(2), trailers, 1), trailers = NULL; break;
    case 5:
        length = h2_stream_body(c, id, &body);
        if (length > 0) touch(body, (uint64_t)length);
        h2_free(body);
        break;
    case 6: h2_consume(c, id); break;
    case 7: h2_keep(c, id, dice(3000)); break;
    case 8: h2_reset(c, id, codes[dice(4)]); break;
    default: break;
    }
    /* Trailers that were not given away must outlive the stream: let it have them after all. */
    stream *s = find(c, id);
    if (s && s->trailers == trailers && trailers) s->own_trailers = 1;
    else if (trailers) h2_headers_free(trailers);
    if (head) h2_headers_free(head);
}

static void look(h2_connection *c, peer *p, const uint8_t *input, size_t input_length, int broken) {
    long count = h2_event_count(c->context);
    for (long i = 0; i < count; i++) {
        h2_event event = h2_events(c->context)[i];
        size_t slot = (size_t)event.stream_id / 2;
        if (slot < STREAMS) {
            check(p->state[slot] != OVER);
            check((p->state[slot] == UNSEEN) == !!(event.flags & H2_HEAD));
            p->state[slot] = event.flags & H2_CLOSED ? OVER : SEEN;
        }
        check(event.head_length == 0 || event.flags & H2_HEAD);
        if (event.head_length) {
            check(event.head_offset + event.head_length <= h2_heads_length(c->context));
            touch(h2_heads(c->context) + event.head_offset, event.head_length);
        }
        check(!event.body || event.flags & H2_BODY);
        check(!event.body_length == !(event.flags & H2_BODY));
        if (event.body) touch(event.body, event.body_length);
        else if (event.body_length) {
            check(event.input_offset + event.body_length <= input_length);
            touch(input + event.input_offset, event.body_length);
        }
        h2_free(event.body);
        p->recent = event.stream_id;
    }
    for (long i = 0; i < count && !broken; i++) {
        int32_t id = h2_events(c->context)[i].stream_id;
        if (dice(4)) act(c, id);
    }
}

static void drain_output(h2_connection *c, peer *p) {
    char output[2000];
    long length;
    do {
        length = h2_send(c, output, 1 + dice(sizeof output));
        if (length > 0) touch(output, (uint64_t)length);
        if (length >= 0) look(c, p, NULL, 0, 1);
    } while (length > 0 && dice(20));
}

static void play(const uint8_t *data, size_t size) {
    h2_limits wide = {16, 16384, 65535, 1 << 20, 2048, 300, 20000, 30000, 40000, 0};
    h2_limits narrow = {4, 16384, 65535, 1 << 20, 300, 5, 40, 300, 400, 0};
    h2_limits limits = dice(2) ? wide : narrow;
    int32_t ids = 2 * STREAMS;
    h2_context *context = h2_context_new();
    if (!context) return;
    h2_connection *bystander = h2_connection_new(context, &limits), *c = h2_connection_new(context, &limits);
    peer p = {{UNSEEN}, 1};
    int style = (int)dice(3);
    for (size_t at = 0; c && at < size;) {
        size_t length = style == 0 ? size : style == 1 ? 1 + dice(12) : 1 + dice(3000);
        if (length > size - at) length = size - at;
        uint8_t *input = NULL, *where = NULL;
        size_t ahead = dice(4) ? h2_read_ahead(c, &where) : 0;
        if (ahead) {
            if (length > ahead) length = ahead;
        } else if (!(where = input = malloc(length))) { /* as long as the bytes, and no longer */
            break;
        }
        memcpy(where, data + at, length);
        long result = h2_receive(c, where, length);
        look(c, &p, input, input ? length : 0, result < 0);
        if (input) memset(input, 0xEE, length);
        free(input);
        at += length;
        check(h2_held_bytes(c) <= limits.max_held_bytes && context->held <= limits.max_shared_bytes);
        touched ^= (uint8_t)(h2_alive(c) + h2_pings(c) + h2_unsent_bytes(c, p.recent));
        check(h2_open_streams(c) <= limits.max_concurrent_streams);
        if (!dice(4)) act(c, dice(2) ? p.recent : (int32_t)dice((uint32_t)ids));
        if (!dice(60)) h2_ping(c);
        if (!dice(200)) h2_goaway(c, (int)dice(2), 0, "bye", dice(2) ? 3 : 0);
        if (!dice(3) || result < 0) drain_output(c, &p);
        if (result < 0) break;
        if (!dice(300) && bystander) h2_connection_free(bystander), bystander = NULL;
    }
    if (c && dice(2)) drain_output(c, &p);
    if (c) h2_connection_free(c);
    if (bystander) h2_connection_free(bystander);
    check(context->held == 0);
    h2_context_free(context);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) return 0;
    random_state = data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16;
    allocations_fail = data[3] & 1;
    play(data + 4, size - 4);
    return 0;
}
#else
typedef struct {
    uint8_t *data;
    size_t size;
} file;

static size_t mangled(const file *files, uint32_t count, uint8_t *output, size_t room) {
    const file *chosen = &files[dice(count)];
    size_t size = chosen->size < room ? chosen->size : room;
    memcpy(output, chosen->data, size);
    for (uint32_t change = dice(6); change && size > 40; change--) {
        size_t at = 24 + dice((uint32_t)size - 24); /* without the preface nothing happens */
        size_t length = 1 + dice(40);
        if (length > size - at) length = size - at;
        const file *other = &files[dice(count)];
        switch (dice(6)) {
        case 0: output[at] ^= (uint8_t)(1u << dice(8)); break;
        case 1: output[at] = (uint8_t)dice(256); break;
        case 2: memmove(output + at, output + at + length, size - at - length), size -= length; break;
        case 3:
            if (size + length > room) break;
            memmove(output + at + length, output + at, size - at);
            size += length;
            break;
        default: /* another's frames behind ours */
            if (size + other->size > room || other->size < 24) break;
            memcpy(output + size, other->data + 24, other->size - 24);
            size += other->size - 24;
        }
    }
    return size;
}

int main(int argc, char **argv) {
    static uint8_t input[1 << 18];
    if (argc < 4) return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10), runs = strtoull(argv[2], NULL, 10);
    uint32_t count = (uint32_t)argc - 3;
    file *files = calloc(count, sizeof *files);
    for (uint32_t i = 0; files && i < count; i++) {
        FILE *source = fopen(argv[3 + i], "rb");
        if (!source) return 2;
        files[i].data = malloc(1 << 16);
        files[i].size = files[i].data ? fread(files[i].data, 1, 1 << 16, source) : 0;
        fclose(source);
    }
    for (uint64_t run = 0; files && run < runs; run++) {
        random_state = seed * 1000003 + run;
        for (int i = 0; i < 4; i++) dice(2);
        allocations_fail = !dice(4);
        size_t size = mangled(files, count, input, sizeof input);
        play(input, size);
    }
    for (uint32_t i = 0; files && i < count; i++) free(files[i].data);
    free(files);
    printf("%llu runs\n", (unsigned long long)runs);
    return 0;
}
#endif
