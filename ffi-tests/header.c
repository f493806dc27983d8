/* Compiled, never run: what including the header does in every dialect of C and C++. */
#include "kvs.h"
#include "kvs.h"

#ifndef KVS_VERSION_NUMBER
#error "the include guard swallowed the header"
#endif

static const unsigned long numbers[] = {
    KVS_ABI_VERSION, KVS_VERSION_NUMBER, KVS_KEY_LEN_MAX, KVS_VALUE_LEN_MAX,
    KVS_OPT_ENGINE, KVS_OPT_SERVER_CONNECTIONS_MAX, KVS_DURABILITY_SYNC, KVS_READ_POSITIONED,
    KVS_WAIT_FOREVER
};
static const kvs_status statuses[] = {KVS_OK, KVS_NOT_FOUND, KVS_ERR_NULL, KVS_ERR_PERMISSION};

int use_header(const char *path);

int use_header(const char *path)
{
    kvs_store *store = NULL;
    kvs_status status = kvs_open(path, NULL, &store);
    if (status == statuses[0])
        status = kvs_set(store, "key", 3, numbers, sizeof numbers);
    kvs_close(store);
    kvs_store_free(store);
    return status < 0;
}
