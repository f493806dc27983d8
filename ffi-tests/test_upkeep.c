/* What an operator wants: copies, verification, figures, and what the library has to say. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void a_checkpoint_opens_and_holds_what_was_there(const char *dir) {
    kvs_store *store = open_store(path_in(dir, "store")), *copy = NULL;
    const char *dest = path_in(dir, "copy");
    uint64_t count = 0;
    uint32_t i;

    for (i = 0; i < 500; i++) CHECK_OK(kvs_set(store, &i, sizeof i, BYTES("before")));
    if (!engine_is("kvs")) {
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "checkpoints", kvs_checkpoint(store, dest));
        kvs_store_free(store);
        return;
    }
    CHECK_OK(kvs_checkpoint(store, dest));
    CHECK_OK(kvs_set(store, BYTES("later"), BYTES("x")));
    CHECK_FAILS(KVS_ERR_STORE_EXISTS, dest, kvs_checkpoint(store, dest));
    CHECK_FAILS(KVS_ERR_INVALID, "dest_utf8", kvs_checkpoint(store, ""));
    CHECK_FAILS(KVS_ERR_NOT_UTF8, "dest_utf8", kvs_checkpoint(store, "\xff"));
    CHECK(kvs_checkpoint(store, path_in(dir, "store")) < 0);

    copy = open_store(dest);
    CHECK_OK(kvs_len(copy, &count));
    CHECK_NUMBER(500, count);
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(copy, BYTES("later")));
    kvs_store_free(copy);
    CHECK_VALUE(store, "later", "x");
    kvs_store_free(store);
}

/* Whether the bytes of a buffer contain a text. Frees it. */
static int says(kvs_buf *buf, const char *text) {
    char *copy = calloc(1, kvs_buf_len(buf) + 1);
    int found;
    if (kvs_buf_len(buf) > 0) memcpy(copy, kvs_buf_data(buf), kvs_buf_len(buf));
    found = strstr(copy, text) != NULL;
    if (!found) fprintf(stderr, "%s\n", copy);
    free(copy);
    kvs_buf_free(buf);
    return found;
}

static void verify_counts_what_is_whole_and_what_is_not(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_buf *report = NULL;
    uint64_t records = 99, bad = 99;
    char value[1000];
    uint32_t i;

    memset(value, 'v', sizeof value);
    for (i = 0; i < 100; i++) CHECK_OK(kvs_set(store, &i, sizeof i, value, sizeof value));
    if (!engine_is("kvs")) {
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "verification", kvs_verify(store, &records, &bad));
        CHECK(records == 0 && bad == 0);
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "verification", kvs_verify_json(store, &report));
        kvs_store_free(store);
        return;
    }
    CHECK_OK(kvs_verify(store, &records, &bad));
    CHECK(records >= 100);
    CHECK_NUMBER(0, bad);
    CHECK_OK(kvs_verify_json(store, &report));
    CHECK(says(report, "\"damages\":[]"));

    /* Under the open store, as a failing disk would; all of it is in its file by now. */
    kvs_store_free(store);
    store = open_store(dir);
    damage(dir);
    CHECK_OK(kvs_verify(store, &records, &bad));
    CHECK_NUMBER(2, bad); /* One stretch of the file, and one key in it. */
    CHECK_OK(kvs_verify_json(store, &report));
    CHECK(says(report, "\"unreadable_key_count\":1,"));
    kvs_store_free(store);
}

static void figures_are_those_of_the_store(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_stats stats;
    kvs_buf *json = NULL;
    uint32_t i;

    for (i = 0; i < 10; i++) CHECK_OK(kvs_set(store, &i, sizeof i, BYTES("value")));
    CHECK_OK(kvs_remove(store, &(uint32_t){3}, sizeof(uint32_t)));
    CHECK_OK(kvs_sync(store));
    if (!engine_is("kvs")) {
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "statistics", kvs_get_stats(store, &stats, sizeof stats));
        CHECK(all_bytes_are(0, &stats, sizeof stats));
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "statistics", kvs_stats_json(store, &json));
        kvs_store_free(store);
        return;
    }
    CHECK_OK(kvs_get_stats(store, &stats, sizeof stats));
    CHECK_NUMBER(9, stats.key_count);
    CHECK_NUMBER(11, stats.record_count);
    CHECK(stats.group_count > 0 && stats.group_count <= 11);
    CHECK(stats.live_bytes > 9 * 9 && stats.total_bytes > stats.live_bytes);
    CHECK(stats.tombstone_bytes > 0 && stats.segment_count > 0 && stats.index_bytes > 0);
    CHECK(stats.sync_count > 0);
    CHECK_NUMBER(0, stats.crash_tails_cut);
    CHECK_NUMBER(stats.total_bytes, stats.live_bytes + stats.dead_bytes);
    CHECK_NUMBER(2, stats.tombstone_count + 1);
    CHECK(stats.written_bytes > 0 && stats.open_us > 0 && stats.sync_us >= stats.sync_us_max);
    CHECK(stats.unsynced_bytes == 0 && stats.is_poisoned == 0 && stats.is_reserve_lent == 0);
    CHECK_OK(kvs_stats_json(store, &json));
    CHECK(says(json, "\"key_count\":9,"));
    kvs_store_free(store);
}

/* Whether a store that is opened with a way of writing has a tail. */
static uint64_t has_tail(const char *dir, uint64_t write_mode) {
    kvs_options *options = engine_options();
    kvs_store *store = NULL;
    kvs_stats stats = {0};

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_WRITE_MODE, write_mode));
    if (CHECK_OK(kvs_open(dir, options, &store))) {
        CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
        if (engine_is("kvs")) CHECK_OK(kvs_get_stats(store, &stats, sizeof stats));
        CHECK_VALUE(store, "k", "v");
    }
    kvs_options_free(options);
    kvs_store_free(store);
    return stats.has_tail;
}

static void the_way_of_writing_can_be_chosen(const char *dir) {
    kvs_store *store = open_store(path_in(dir, "default"));
    kvs_stats stats = {0};

    if (engine_is("kvs")) CHECK_OK(kvs_get_stats(store, &stats, sizeof stats));
    CHECK_NUMBER(stats.has_tail, has_tail(path_in(dir, "tail"), KVS_WRITE_MODE_TAIL));
    CHECK_NUMBER(0, has_tail(path_in(dir, "direct"), KVS_WRITE_MODE_DIRECT));
    CHECK_NUMBER(0, has_tail(path_in(dir, "tail"), KVS_WRITE_MODE_DIRECT));
    CHECK_NUMBER(stats.has_tail, has_tail(path_in(dir, "direct"), KVS_WRITE_MODE_TAIL));
    kvs_store_free(store);
}

/* A program and a library of different versions: the shorter structure counts. */
static void structures_of_any_size_are_filled_as_far_as_both_know(const char *dir) {
    kvs_store *store = open_store(dir);
    struct { kvs_stats known; uint64_t later[3]; } longer;
    struct { uint64_t key_count; uint64_t behind; } shorter;

    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    if (engine_is("kvs")) {
        memset(&longer, 0x5a, sizeof longer);
        CHECK_OK(kvs_get_stats(store, &longer.known, sizeof longer));
        CHECK_NUMBER(1, longer.known.key_count);
        CHECK(all_bytes_are(0, longer.later, sizeof longer.later));
        memset(&shorter, 0x5a, sizeof shorter);
        CHECK_OK(kvs_get_stats(store, (kvs_stats *)(void *)&shorter, sizeof shorter.key_count));
        CHECK_NUMBER(1, shorter.key_count);
        CHECK(all_bytes_are(0x5a, &shorter.behind, sizeof shorter.behind));
        CHECK_OK(kvs_get_stats(store, NULL, 0));
        CHECK_FAILS(KVS_ERR_INVALID, "stats", kvs_get_stats(store, &longer.known, (size_t)-1));
    }
    kvs_store_free(store);
}

/* What a logger has heard; changed by its thread only. */
typedef struct heard {
    int lines, level;
    char text[256];
    kvs_store *store;
    kvs_status set_inside, write_inside;
} heard;

static void listen_to_it(void *userdata, int32_t level, const char *text) {
    heard *heard = userdata;
    heard->lines++;
    heard->level = level;
    snprintf(heard->text, sizeof heard->text, "%s", text);
    heard->set_inside = kvs_set_logger(KVS_LOG_OFF, NULL, NULL);
    heard->write_inside = kvs_set(heard->store, BYTES("heard"), BYTES("x"));
}

/* Begins as a TLS client would, which the server notices in its log, and waits to be cut off. */
static void provoke_a_line(kvs_server *server) {
    struct sockaddr_in to;
    char reply[64];
    uint16_t port = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK_OK(kvs_server_port(server, &port));
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK_NUMBER(3, send(fd, "\x16\x03\x01", 3, MSG_NOSIGNAL));
    while (recv(fd, reply, sizeof reply, 0) > 0) continue;
    close(fd);
}

static void the_logger_hears_lines_until_it_is_unset(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_server *server = NULL;
    heard first = {0}, second = {0};

    first.store = second.store = store;
    CHECK_OK(kvs_server_start(store, "127.0.0.1:0", NULL, &server));
    provoke_a_line(server); /* Nobody listens. */

    CHECK_FAILS(KVS_ERR_INVALID, "KVS_LOG_", kvs_set_logger(6, listen_to_it, &first));
    CHECK_FAILS(KVS_ERR_INVALID, "KVS_LOG_", kvs_set_logger(-1, listen_to_it, &first));
    CHECK_OK(kvs_set_logger(KVS_LOG_WARN, listen_to_it, &first));
    provoke_a_line(server);
    CHECK_OK(kvs_set_logger(KVS_LOG_ERROR, listen_to_it, &second));
    /* It was waited for, so this may be read now. */
    CHECK_NUMBER(1, first.lines);
    CHECK_NUMBER(KVS_LOG_WARN, first.level);
    CHECK(strstr(first.text, "TLS") != NULL);
    CHECK_STATUS(KVS_ERR_INVALID, first.set_inside);
    CHECK_STATUS(KVS_OK, first.write_inside);

    provoke_a_line(server); /* A warning is no error. */
    CHECK_OK(kvs_set_logger(KVS_LOG_WARN, NULL, NULL));
    provoke_a_line(server);
    CHECK_OK(kvs_set_logger(99, NULL, NULL));
    CHECK_NUMBER(1, first.lines);
    CHECK_NUMBER(0, second.lines);
    CHECK_OK(kvs_server_stop(server, 1000));
    kvs_server_free(server);
    kvs_store_free(store);
}

static void *set_and_unset(void *argument) {
    int i;
    for (i = 0; i < rounds(200); i++) {
        heard heard = {0};
        heard.store = argument;
        CHECK_OK(kvs_set_logger(KVS_LOG_TRACE, listen_to_it, &heard));
        CHECK_OK(kvs_set_logger(KVS_LOG_OFF, NULL, NULL));
    }
    return NULL;
}

/* From several threads at once: one after the other, and no userdata is used after its end. */
static void loggers_may_be_changed_from_any_thread(const char *dir) {
    kvs_store *store = open_store(dir);
    pthread_t threads[4];
    int i;

    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, set_and_unset, store) == 0);
    for (i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    kvs_store_free(store);
}

static void the_child_of_a_fork_has_no_logger(const char *dir) {
    kvs_store *store = open_store(dir);
    heard heard = {0};
    const int before = failures_now();
    pid_t child;

    heard.store = store;
    CHECK_OK(kvs_set_logger(KVS_LOG_TRACE, listen_to_it, &heard));
    fflush(NULL);
    child = fork();
    if (child == 0) {
        alarm(20);
        CHECK_FAILS(KVS_ERR_FORKED, "parent", kvs_set_logger(KVS_LOG_OFF, NULL, NULL));
        child_end(before);
    }
    CHECK_CHILD(child);
    CHECK_OK(kvs_set_logger(KVS_LOG_OFF, NULL, NULL));
    kvs_store_free(store);
}

const phase upkeep_phases[] = {
    PHASE(a_checkpoint_opens_and_holds_what_was_there, PLAIN),
    PHASE(verify_counts_what_is_whole_and_what_is_not, PLAIN),
    PHASE(the_way_of_writing_can_be_chosen, PLAIN),
    PHASE(figures_are_those_of_the_store, PLAIN),
    PHASE(structures_of_any_size_are_filled_as_far_as_both_know, PLAIN),
    PHASE(the_logger_hears_lines_until_it_is_unset, PLAIN),
    PHASE(loggers_may_be_changed_from_any_thread, PLAIN),
    PHASE(the_child_of_a_fork_has_no_logger, FORKS),
    {NULL, PLAIN, NULL},
};
