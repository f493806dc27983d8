/* Keys that go by themselves: cc expiry.c -lkvs && ./a.out sessions */
#include <stdio.h>
#include <time.h>

#include "kvs.h"

int main(int argc, char **argv) {
    const uint64_t now_ms = (uint64_t)time(NULL) * 1000;
    uint64_t at_ms = 0;
    kvs_store *store = NULL;
    int failed = kvs_open(argc > 1 ? argv[1] : "sessions", NULL, &store) < 0 ||
                 kvs_set_with_expiry(store, "7", 1, "ada", 3, now_ms + 3600000) < 0 ||
                 kvs_set_with_expiry(store, "6", 1, "bob", 3, now_ms - 1) < 0 ||
                 kvs_get_expiry(store, "7", 1, &at_ms) != KVS_OK;

    if (failed) fprintf(stderr, "%s\n", kvs_last_error());
    else printf("the session is good for another %lu s\n", (unsigned long)(at_ms - now_ms) / 1000);
    if (!failed && kvs_contains(store, "6", 1) == KVS_NOT_FOUND) puts("an old one is not there");
    if (store != NULL && kvs_close(store) < 0) failed = 1;
    kvs_store_free(store);
    return failed;
}
