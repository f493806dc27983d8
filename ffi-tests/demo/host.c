/*
 * A C program that embeds kvs: it loads real data into a store, looks some of it up, and serves the
 * open store to other programs until its input ends.
 *
 *     host [--port-file FILE] NAMES.tsv DIRECTORY [CODEPOINT...]
 *
 * NAMES.tsv holds one assigned Unicode character per line: its code point in hexadecimal, a tab,
 * and its name. The key is the code point as it is written there, the value is the name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kvs.h"

/* Names have at most 88 bytes; this is room for a line that is none of ours, too. */
enum { LINE_LEN_MAX = 512 };

static const char *const default_code_points[] = {"1F980", "41", "20AC"};

/* Says what the library refused, and gives main its result. */
static int refused(const char *what) {
    fprintf(stderr, "host: cannot %s: %s\n", what, kvs_last_error());
    return 1;
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Sets a key for each line of the file. Returns the number of lines, or -1. */
static long load(kvs_store *store, const char *path) {
    char line[LINE_LEN_MAX];
    long count = 0;
    FILE *file = fopen(path, "r");

    if (file == NULL) {
        fprintf(stderr, "host: cannot open %s: %s\n", path, strerror(errno));
        return -1;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        size_t len = strcspn(line, "\n");
        const char *tab = memchr(line, '\t', len);
        const char *name = tab != NULL ? tab + 1 : NULL;
        if (name == NULL || tab == line || line[len] != '\n') {
            fprintf(stderr, "host: %s:%ld: not a code point, a tab and a name\n", path, count + 1);
            count = -1;
            break;
        }
        if (kvs_set(store, line, (size_t)(tab - line), name, len - (size_t)(name - line)) < 0) {
            refused("set a key");
            count = -1;
            break;
        }
        count++;
    }
    if (count >= 0 && ferror(file)) {
        fprintf(stderr, "host: cannot read %s: %s\n", path, strerror(errno));
        count = -1;
    }
    fclose(file);
    return count;
}

/* Prints the name of a code point. */
static int look_up(kvs_store *store, const char *code_point) {
    char name[LINE_LEN_MAX];
    size_t len = 0;
    const unsigned long number = strtoul(code_point, NULL, 16);

    switch (kvs_get_into(store, code_point, strlen(code_point), name, sizeof name, &len)) {
    case KVS_OK: printf("  U+%04lX %.*s\n", number, (int)len, name); return 0;
    case KVS_NOT_FOUND: printf("  U+%04lX is not assigned\n", number); return 0;
    case KVS_TOO_SMALL: fprintf(stderr, "host: a name of %lu bytes\n", (unsigned long)len); return 1;
    default: return refused("look up a name");
    }
}

/* Writes the port whole or not at all: whoever waits for the file may read it at once. */
static int write_port(const char *path, unsigned port) {
    char temporary[1024];
    FILE *file;
    int written;

    snprintf(temporary, sizeof temporary, "%s.new", path);
    file = fopen(temporary, "w");
    written = file != NULL && fprintf(file, "%u\n", port) > 0;
    if (file != NULL && fclose(file) != 0) written = 0;
    if (written && rename(temporary, path) == 0) return 0;
    fprintf(stderr, "host: cannot write %s: %s\n", path, strerror(errno));
    return 1;
}

/* Serves the store until standard input ends. */
static int serve(kvs_store *store, const char *port_file) {
    kvs_server *server = NULL;
    char address[64], input[256];
    size_t address_len = 0;
    uint16_t port = 0;
    int failed;

    if (kvs_server_start(store, "127.0.0.1:0", NULL, &server) < 0)
        return refused("start the server");
    failed = kvs_server_address(server, address, sizeof address, &address_len) != KVS_OK ||
             kvs_server_port(server, &port) != KVS_OK;
    if (failed) refused("learn the server's address");
    if (!failed) {
        printf("listening on %s\n", address);
        fflush(stdout);
        failed = port_file != NULL && write_port(port_file, port);
    }
    while (!failed && read(STDIN_FILENO, input, sizeof input) > 0) continue;
    if (kvs_server_stop(server, 5000) < 0) failed = refused("stop the server");
    kvs_server_free(server);
    return failed;
}

/* Loads, looks up, serves. */
static int run(kvs_store *store, const char *tsv, char **code_points, int code_point_count,
               const char *port_file) {
    uint64_t keys = 0;
    double started = now_ms(), took;
    long count = load(store, tsv);
    int i, failed = 0;

    if (count < 0) return 1;
    if (kvs_sync(store) < 0) return refused("make the records durable");
    took = now_ms() - started;
    if (kvs_len(store, &keys) < 0) return refused("count the keys");
    printf("loaded %ld records in %.0f ms (%.0f records/s), synced; the store holds %lu keys\n",
           count, took, took > 0 ? (double)count / took * 1e3 : 0.0, (unsigned long)keys);
    if (code_point_count == 0) {
        for (i = 0; i < 3; i++) failed |= look_up(store, default_code_points[i]);
    }
    for (i = 0; i < code_point_count; i++) failed |= look_up(store, code_points[i]);
    return failed ? failed : serve(store, port_file);
}

int main(int argc, char **argv) {
    const char *port_file = NULL;
    kvs_store *store = NULL;
    int first = 1, failed;

    if (argc > 2 && strcmp(argv[1], "--port-file") == 0) {
        port_file = argv[2];
        first = 3;
    }
    if (argc - first < 2) {
        fprintf(stderr, "usage: host [--port-file FILE] NAMES.tsv DIRECTORY [CODEPOINT...]\n");
        return 2;
    }
    if (kvs_check_abi(KVS_ABI_VERSION) < 0) return refused("use this libkvs");
    printf("libkvs %s\n", kvs_version());
    if (kvs_open(argv[first + 1], NULL, &store) < 0) return refused("open the store");

    failed = run(store, argv[first], argv + first + 2, argc - first - 2, port_file);
    if (kvs_close(store) < 0) failed = refused("close the store");
    kvs_store_free(store);
    return failed;
}
