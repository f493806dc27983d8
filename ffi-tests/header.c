/* Compiled, never run: what including the header does in every dialect of C and C++. */
#include "kvs.h"
#include "kvs.h"

#ifndef KVS_VERSION_NUMBER
#error "the include guard swallowed the header"
#endif

static const unsigned long numbers[] = {
    KVS_ABI_VERSION, KVS_VERSION_NUMBER, KVS_KEY_LEN_MAX, KVS_VALUE_LEN_MAX,
    KVS_OPT_ENGINE, KVS_OPT_SERVER_CONNECTIONS_MAX, KVS_DURABILITY_SYNC, KVS_READ_POSITIONED,
    KVS_OPT_WRITE_MODE, KVS_WRITE_MODE_DIRECT,
    KVS_OPT_READ_ONLY, KVS_WRITE_SYNC, KVS_SCAN_REVERSE, KVS_SCAN_KEYS_ONLY, KVS_LOG_TRACE, KVS_NO_FD,
    KVS_WAIT_FOREVER
};
static const kvs_status statuses[] = {KVS_OK, KVS_NOT_FOUND, KVS_ERR_NULL, KVS_ERR_PERMISSION};

int use_header(const char *path, kvs_log_fn logger, const kvs_options *options, kvs_store *store);

int use_header(const char *path, kvs_log_fn logger, const kvs_options *options, kvs_store *store)
{
    kvs_stats stats;
    uint64_t expiry_ms = KVS_EXPIRY_NEVER;
    kvs_status status = kvs_set_logger(KVS_LOG_WARN, logger, &stats);
    if (status == statuses[0])
        status = kvs_open(path, options, &store);
    if (status == statuses[0])
        status = kvs_get_stats(store, &stats, sizeof stats);
    if (status == statuses[0])
        status = kvs_set(store, "key", 3, numbers, sizeof numbers);
    if (status == statuses[0] && expiry_ms == KVS_EXPIRY_NEVER)
        status = kvs_set_expiry(store, "key", 3, expiry_ms - 1, &expiry_ms);
    kvs_close(store);
    kvs_store_free(store);
    return status < 0;
}
