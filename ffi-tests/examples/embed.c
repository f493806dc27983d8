/* A store inside a C program: cc embed.c -lkvs && ./a.out cities */
#include <stdio.h>

#include "kvs.h"

int main(int argc, char **argv) {
    kvs_store *store = NULL;
    kvs_buf *city = NULL;
    int failed = kvs_open(argc > 1 ? argv[1] : "cities", NULL, &store) < 0 ||
                 kvs_set(store, "no", 2, "Oslo", 4) < 0 ||
                 kvs_get(store, "no", 2, &city) != KVS_OK;

    if (failed) fprintf(stderr, "%s\n", kvs_last_error());
    else printf("no: %.*s\n", (int)kvs_buf_len(city), (const char *)kvs_buf_data(city));
    kvs_buf_free(city);
    if (store != NULL && kvs_close(store) < 0) failed = 1; /* The last writes are on disk. */
    kvs_store_free(store);
    return failed;
}
