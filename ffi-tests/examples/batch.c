/* Two accounts and a transfer: the writes of a batch happen together or not at all. */
#include <stdio.h>

#include "kvs.h"

int main(int argc, char **argv) {
    kvs_store *store = NULL;
    kvs_batch *transfer = kvs_batch_new();
    kvs_buf *previous = NULL;
    int failed = kvs_open(argc > 1 ? argv[1] : "accounts", NULL, &store) < 0 ||
                 kvs_swap(store, "from", 4, "100", 3, &previous) < 0 ||
                 kvs_batch_set(transfer, "from", 4, "90", 2) < 0 ||
                 kvs_batch_set(transfer, "to", 2, "110", 3) < 0 ||
                 kvs_batch_remove(transfer, "pending", 7) < 0 ||
                 kvs_write(store, transfer, KVS_WRITE_SYNC) < 0; /* It survives power loss. */

    if (failed) fprintf(stderr, "%s\n", kvs_last_error());
    else printf("%lu writes at once; from was %s\n", (unsigned long)kvs_batch_count(transfer),
                previous != NULL ? "there before" : "not there");
    kvs_buf_free(previous);
    kvs_batch_free(transfer);
    kvs_store_free(store);
    return failed;
}
