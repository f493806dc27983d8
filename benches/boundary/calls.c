/* What a call costs from C: times each way to read a store, and prints "name nanoseconds" for one key
 * each; the scans several times, of which the best counts.
 * usage: calls STORE KEYS, where KEYS is a file of keys of 16 bytes, all there. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kvs.h"

/* As many lookups as benches/boundary.rs makes. */
enum { KEY_LEN = 16, DST_LEN = 1 << 16, GET_KEYS = 2000, GET_PASSES = 500, SCAN_PASSES = 8 };

static unsigned long seen; /* So that nothing that is read is left out. */

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Ends the program if a call failed. */
static kvs_status good(kvs_status status) {
    if (status >= 0) return status;
    fprintf(stderr, "%s\n", kvs_last_error());
    exit(1);
}

/* Looks up each of the keys, often; the best pass counts. */
static void get_into(kvs_store *store, const char *keys, size_t count) {
    static char dst[DST_LEN];
    double best = 1e9;
    int pass;

    for (pass = 0; pass < GET_PASSES; pass++) {
        const double began = now_ns();
        size_t i, len;
        for (i = 0; i < count; i++) {
            good(kvs_get_into(store, keys + i * KEY_LEN, KEY_LEN, dst, DST_LEN, &len));
            seen += len + (unsigned char)dst[0];
        }
        if (now_ns() - began < best * (double)count) best = (now_ns() - began) / (double)count;
    }
    printf("get_into %.2f\n", best);
}

static kvs_iter *begin(kvs_store *store, int ordered) {
    kvs_iter *iter = NULL;
    if (ordered) good(kvs_scan(store, NULL, 0, NULL, 0, 0, &iter));
    else good(kvs_scan_unordered(store, 0, &iter));
    return iter;
}

static void next(kvs_store *store, int ordered, size_t count) {
    kvs_iter *iter = begin(store, ordered);
    const double began = now_ns();
    const void *key, *value;
    size_t key_len, value_len, met = 0;

    for (; good(kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK; met++)
        seen += key_len + value_len + *(const unsigned char *)key + *(const unsigned char *)value;
    printf("%s/next %.2f\n", ordered ? "ordered" : "unordered", (now_ns() - began) / (double)count);
    kvs_iter_free(iter);
    if (met != count) exit(1);
}

/* Four bytes, least significant first. */
static size_t length_at(const unsigned char *at) {
    return at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

static void next_many(kvs_store *store, int ordered, size_t count) {
    static unsigned char dst[DST_LEN];
    kvs_iter *iter = begin(store, ordered);
    const double began = now_ns();
    size_t used, records, needed, met = 0;

    while (good(kvs_iter_next_many(iter, dst, DST_LEN, &used, &records, &needed)) == KVS_OK) {
        const unsigned char *at = dst;
        while (at < dst + used) {
            const size_t key_len = length_at(at), value_len = length_at(at + 4);
            seen += key_len + value_len + at[8] + at[8 + key_len];
            at += 8 + key_len + value_len;
        }
        met += records;
    }
    printf("%s/next_many %.2f\n", ordered ? "ordered" : "unordered",
           (now_ns() - began) / (double)count);
    kvs_iter_free(iter);
    if (met != count) exit(1);
}

int main(int argc, char **argv) {
    kvs_store *store = NULL;
    FILE *file;
    char *keys;
    uint64_t count = 0;
    int pass;

    if (argc != 3) return 2;
    good(kvs_open(argv[1], NULL, &store));
    good(kvs_len(store, &count));
    keys = malloc((size_t)count * KEY_LEN);
    file = fopen(argv[2], "rb");
    if (keys == NULL || file == NULL || fread(keys, KEY_LEN, (size_t)count, file) != count) return 1;
    fclose(file);
    get_into(store, keys, count < GET_KEYS ? (size_t)count : GET_KEYS);
    kvs_iter_free(begin(store, 1)); /* Puts the keys in order. */
    /* By turns, so that both meet the same of what else the machine does. */
    for (pass = 0; pass < SCAN_PASSES; pass++) {
        next(store, pass % 2, (size_t)count);
        next_many(store, pass % 2, (size_t)count);
    }
    fprintf(stderr, "%lu\n", seen);
    kvs_store_free(store);
    free(keys);
    return 0;
}
