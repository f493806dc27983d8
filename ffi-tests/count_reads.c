/* Reads every key of a store READS / KEYS times, for callgrind to count what a read takes. */
#include <stdio.h>
#include <stdlib.h>

#include "kvs.h"

enum { KEYS = 1000, READS = 100000 };

static void check(int status) {
    if (status >= 0) return;
    fprintf(stderr, "%s\n", kvs_last_error());
    exit(1);
}

int main(int argc, char **argv) {
    kvs_store *store = NULL;
    char key[17], value[100] = {0};
    size_t len = 0;
    int n;

    if (argc != 2) return 2;
    check(kvs_open(argv[1], NULL, &store));
    for (n = 0; n < KEYS; n++) {
        snprintf(key, sizeof key, "key %012d", n);
        check(kvs_set(store, key, 16, value, sizeof value));
    }
    /* What is still in the tail is read in another way. */
    check(kvs_close(store));
    kvs_store_free(store);
    check(kvs_open(argv[1], NULL, &store));
    for (n = 0; n < READS; n++) {
        snprintf(key, sizeof key, "key %012d", n % KEYS);
        if (kvs_get_into(store, key, 16, value, sizeof value, &len) != KVS_OK || len != 100) return 1;
    }
    check(kvs_close(store));
    kvs_store_free(store);
    printf("%d\n", READS);
    return 0;
}
