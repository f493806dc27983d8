/* Handles every error: what can be done about it decides. ./errors DIRECTORY KEY */
#include <stdio.h>
#include <string.h>

#include "kvs.h"

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : "cities", *key = argc > 2 ? argv[2] : "no";
    kvs_store *store = NULL;
    kvs_status status = kvs_check_abi(KVS_ABI_VERSION), closed = KVS_OK;

    if (status == KVS_OK) status = kvs_open(dir, NULL, &store);
    if (status == KVS_OK) status = kvs_contains(store, key, strlen(key));
    switch (status) { /* Below 0: the text has the details. Above: an answer. */
    case KVS_OK: puts("there"); break;
    case KVS_NOT_FOUND: puts("not there"); break;
    case KVS_ERR_LOCKED: fprintf(stderr, "try later: %s\n", kvs_last_error()); break;
    case KVS_ERR_CORRUPT: fprintf(stderr, "restore a copy: %s\n", kvs_last_error()); break;
    default: fprintf(stderr, "%s (%s): %s\n", kvs_status_text(status), kvs_status_name(status),
                     kvs_last_error());
    }
    if (store != NULL && (closed = kvs_close(store)) < 0) fprintf(stderr, "%s\n", kvs_last_error());
    kvs_store_free(store);
    return status < 0 || closed < 0;
}
