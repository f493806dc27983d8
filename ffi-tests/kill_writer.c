/*
 * A C host that writes until it is killed: see tests/kill/victims.rs, whose arguments and lines
 * these are.
 *
 *   kill_writer DIR DURABILITY SEGMENT_BYTES_MAX VERSION SEED
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvs.h"

enum { THREADS = 4, KEYS_PER_THREAD = 40, VALUE_LEN_MAX = 20100, BATCH_MAX = 6 };

typedef struct writer {
    kvs_store *store;
    unsigned thread;
    uint64_t version;
    uint64_t random;
    char value[VALUE_LEN_MAX];
} writer;

static void ensure(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "%s: %s\n", what, kvs_last_error());
    exit(1);
}

/* xorshift64 */
static uint64_t below(writer *w, uint64_t n) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (w->random >> 11) % n;
}

static unsigned random_key(writer *w) {
    return w->thread * KEYS_PER_THREAD + (unsigned)below(w, KEYS_PER_THREAD);
}

/* What the oracle expects as this version of this key; its length. */
static size_t make_value(writer *w, unsigned key, uint64_t version) {
    size_t filler = version % 23 == 0 ? 20000 : (size_t)(version % 300);
    int len = snprintf(w->value, sizeof w->value, "%u %llu ", key, (unsigned long long)version);
    memset(w->value + len, 'x', filler);
    return (size_t)len + filler;
}

/* One write of less than a page to a pipe arrives whole, whoever else writes. */
static void say(const char *line, int len) {
    if (write(STDOUT_FILENO, line, (size_t)len) != len) exit(0);
}

static void write_one(writer *w, unsigned key, uint64_t version) {
    char name[16];
    int len = snprintf(name, sizeof name, "key %u", key);
    if (version == 0) {
        ensure(kvs_remove(w->store, name, (size_t)len) >= 0, "remove");
    } else {
        size_t value_len = make_value(w, key, version);
        ensure(kvs_set(w->store, name, (size_t)len, w->value, value_len) == KVS_OK, "set");
    }
}

static void write_batch(writer *w, const unsigned *keys, const uint64_t *versions, int count) {
    kvs_batch *batch = kvs_batch_new();
    int i;
    for (i = 0; i < count; i++) {
        char name[16];
        int len = snprintf(name, sizeof name, "key %u", keys[i]);
        if (versions[i] == 0) {
            ensure(kvs_batch_remove(batch, name, (size_t)len) == KVS_OK, "batch remove");
        } else {
            size_t value_len = make_value(w, keys[i], versions[i]);
            ensure(kvs_batch_set(batch, name, (size_t)len, w->value, value_len) == KVS_OK,
                   "batch set");
        }
    }
    ensure(kvs_write(w->store, batch, 0) == KVS_OK, "write");
    kvs_batch_free(batch);
}

/* Says what it will do, does it, and says that it was done. */
static void step(writer *w) {
    unsigned keys[BATCH_MAX];
    uint64_t versions[BATCH_MAX];
    char line[256];
    int count = below(w, 10) < 8 ? 1 : 2 + (int)below(w, BATCH_MAX - 1);
    int len, i;
    unsigned first = random_key(w);
    w->version++;
    len = snprintf(line, sizeof line, "? %u", w->thread);
    for (i = 0; i < count; i++) {
        /* Different keys, all of this thread. */
        unsigned within = (first + (unsigned)i) % KEYS_PER_THREAD;
        keys[i] = w->thread * KEYS_PER_THREAD + within;
        versions[i] = below(w, 4) == 0 ? 0 : w->version;
        len += snprintf(line + len, sizeof line - (size_t)len, " %u:%llu", keys[i],
                        (unsigned long long)versions[i]);
    }
    len += snprintf(line + len, sizeof line - (size_t)len, "\n");
    say(line, len);
    if (count == 1) write_one(w, keys[0], versions[0]);
    else write_batch(w, keys, versions, count);
    len = snprintf(line, sizeof line, "! %u\n", w->thread);
    say(line, len);
}

static void *write_on(void *argument) {
    for (;;) step(argument);
    return NULL;
}

int main(int argc, char **argv) {
    static writer writers[THREADS];
    kvs_options *options = kvs_options_new();
    kvs_store *store = NULL;
    uint64_t segment_bytes_max;
    unsigned i;

    if (argc != 6) {
        fprintf(stderr, "kill_writer DIR DURABILITY SEGMENT_BYTES_MAX VERSION SEED\n");
        return 2;
    }
    ensure(kvs_options_set_u64(options, KVS_OPT_DURABILITY, strtoull(argv[2], NULL, 10)) == KVS_OK,
           "durability");
    ensure(kvs_options_set_u64(options, KVS_OPT_SYNC_INTERVAL_MS, 3) == KVS_OK, "interval");
    ensure(kvs_options_set_u64(options, KVS_OPT_LOCK_TIMEOUT_MS, 5000) == KVS_OK, "lock timeout");
    segment_bytes_max = strtoull(argv[3], NULL, 10);
    if (segment_bytes_max != 0) {
        ensure(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MIN, 0) == KVS_OK, "minimum");
        ensure(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MAX, segment_bytes_max) == KVS_OK,
               "maximum");
    }
    ensure(kvs_open(argv[1], options, &store) == KVS_OK, argv[1]);
    for (i = 0; i < THREADS; i++) {
        pthread_t thread;
        writers[i].store = store;
        writers[i].thread = i;
        writers[i].version = strtoull(argv[4], NULL, 10);
        writers[i].random = (strtoull(argv[5], NULL, 10) ^ ((uint64_t)(i + 1) << 40)) | 1;
        ensure(pthread_create(&thread, NULL, write_on, &writers[i]) == 0, "thread");
    }
    for (;;) {
        ensure(kvs_compact(store) == KVS_OK, "compact");
        usleep(3000);
    }
}
