/* Prints the keys that begin with a prefix, last first: ./scan DIRECTORY [PREFIX] */
#include <stdio.h>
#include <string.h>

#include "kvs.h"

int main(int argc, char **argv) {
    const char *prefix = argc > 2 ? argv[2] : "";
    const void *key, *value;
    size_t key_len, value_len;
    kvs_store *store = NULL;
    kvs_iter *iter = NULL;
    kvs_status status = kvs_open(argc > 1 ? argv[1] : "cities", NULL, &store);

    if (status == KVS_OK)
        status = kvs_scan_prefix(store, prefix, strlen(prefix), KVS_SCAN_REVERSE, &iter);
    while (status == KVS_OK && /* The pointers are good until the next call. */
           (status = kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK)
        printf("%.*s: %.*s\n", (int)key_len, (const char *)key, (int)value_len, (char *)value);
    if (status < 0) fprintf(stderr, "%s\n", kvs_last_error());
    kvs_iter_free(iter);
    kvs_store_free(store);
    return status < 0; /* KVS_END is above 0. */
}
