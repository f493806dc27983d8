/* Keys that go at a time: told, changed and taken off; alone and in batches. */
#include "harness.h"

#include <sys/time.h>
#include <unistd.h>

static uint64_t now_ms(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_usec / 1000;
}

/* The expiry of a key; `status` is what asking for it must come to. */
#define EXPIRY_IS(expected, status, key)                          \
    do {                                                          \
        uint64_t found_ = 99;                                     \
        CHECK_STATUS(status, kvs_get_expiry(store, BYTES(key), &found_)); \
        CHECK((expected) == found_);                              \
    } while (0)

static void an_expiry_is_told_changed_and_taken_off(const char *dir) {
    kvs_store *store = open_store(dir);
    const uint64_t later = now_ms() + 3600000;
    uint64_t before = 99;

    if (!engine_is("kvs")) {
        kvs_store_free(store);
        return;
    }
    EXPIRY_IS(0, KVS_NOT_FOUND, "k");
    CHECK_STATUS(KVS_NOT_FOUND, kvs_set_expiry(store, BYTES("k"), later, &before));
    CHECK_NUMBER(0, before);
    CHECK_OK(kvs_set_with_expiry(store, BYTES("k"), BYTES("v"), later));
    CHECK_VALUE(store, "k", "v");
    EXPIRY_IS(later, KVS_OK, "k");

    CHECK_OK(kvs_set_expiry(store, BYTES("k"), later + 1, &before));
    CHECK(before == later);
    EXPIRY_IS(later + 1, KVS_OK, "k");
    CHECK_OK(kvs_set_expiry(store, BYTES("k"), KVS_EXPIRY_NEVER, &before));
    CHECK(before == later + 1);
    EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "k");
    CHECK_OK(kvs_set_expiry(store, BYTES("k"), later, &before));
    CHECK(before == KVS_EXPIRY_NEVER);
    CHECK_VALUE(store, "k", "v");

    /* Set anew, it stays; and nobody need ask what was before. */
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("w")));
    EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "k");
    CHECK_OK(kvs_set_expiry(store, BYTES("k"), later, NULL));
    EXPIRY_IS(later, KVS_OK, "k");
    CHECK_OK(kvs_set_with_expiry(store, BYTES("k"), BYTES(""), KVS_EXPIRY_NEVER));
    EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "k");
    CHECK_VALUE(store, "k", "");

    /* It is on disk. */
    CHECK_OK(kvs_set_with_expiry(store, BYTES("k"), BYTES("v"), later));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
    store = open_store(dir);
    EXPIRY_IS(later, KVS_OK, "k");
    kvs_store_free(store);
}

static void a_key_is_there_until_its_time_and_not_after(const char *dir) {
    kvs_store *store = open_store(dir);
    const uint64_t at = now_ms() + 300;
    kvs_status status = KVS_OK;
    uint64_t looked = 0;

    if (!engine_is("kvs")) {
        kvs_store_free(store);
        return;
    }
    CHECK_OK(kvs_set_with_expiry(store, BYTES("past"), BYTES("v"), 1));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("past")));
    EXPIRY_IS(0, KVS_NOT_FOUND, "past");
    CHECK_OK(kvs_set_with_expiry(store, BYTES("k"), BYTES("v"), at));
    while (status == KVS_OK && looked < at + 10000) {
        looked = now_ms();
        status = kvs_contains(store, BYTES("k"));
        if (status == KVS_OK) CHECK(looked < at);
        usleep(1000);
    }
    CHECK_STATUS(KVS_NOT_FOUND, status);
    CHECK(now_ms() >= at);
    CHECK_STATUS(KVS_NOT_FOUND, kvs_remove(store, BYTES("k")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_set_expiry(store, BYTES("k"), KVS_EXPIRY_NEVER, NULL));
    kvs_store_free(store);
}

static void a_batch_sets_keys_with_their_times(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();
    const uint64_t later = now_ms() + 3600000;

    CHECK_OK(kvs_batch_set_with_expiry(batch, BYTES("stays"), BYTES("v"), KVS_EXPIRY_NEVER));
    CHECK_NUMBER(1, kvs_batch_count(batch));
    CHECK_OK(kvs_write(store, batch, 0)); /* On every engine. */
    EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "stays");
    CHECK_OK(kvs_batch_set_with_expiry(batch, BYTES("goes"), BYTES("v"), later));
    CHECK_OK(kvs_batch_set_with_expiry(batch, BYTES("gone"), BYTES("v"), 1));
    CHECK_OK(kvs_batch_set(batch, BYTES("plain"), BYTES("v")));
    CHECK_NUMBER(4, kvs_batch_count(batch));
    if (engine_is("kvs")) {
        CHECK_OK(kvs_write(store, batch, 0));
        EXPIRY_IS(later, KVS_OK, "goes");
        EXPIRY_IS(0, KVS_NOT_FOUND, "gone");
        EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "plain");
        CHECK_VALUE(store, "goes", "v");
    } else {
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "expiry", kvs_write(store, batch, 0));
        CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("plain")));
    }
    kvs_batch_free(batch);
    kvs_store_free(store);
}

static void what_is_too_long_is_refused_with_a_time_too(const char *dir) {
    static const char key[KVS_KEY_LEN_MAX + 1];
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();

    CHECK_FAILS(KVS_ERR_KEY_TOO_LONG, "65536",
                kvs_batch_set_with_expiry(batch, key, sizeof key, BYTES("v"), 1));
    CHECK_FAILS(KVS_ERR_VALUE_TOO_LONG, "1073741825",
                kvs_batch_set_with_expiry(batch, "k", 1, key, (size_t)KVS_VALUE_LEN_MAX + 1, 1));
    CHECK_NUMBER(0, kvs_batch_count(batch));
    CHECK_FAILS(KVS_ERR_KEY_TOO_LONG, "65536",
                kvs_set_with_expiry(store, key, sizeof key, BYTES("v"), KVS_EXPIRY_NEVER));
    kvs_batch_free(batch);
    kvs_store_free(store);
}

/* It keeps what stays for ever, and says what it cannot do. */
static void an_engine_without_expiry_says_so(const char *dir) {
    kvs_store *store = open_store(dir);
    uint64_t before = 99;

    if (engine_is("sled")) {
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "expiry",
                    kvs_set_with_expiry(store, BYTES("k"), BYTES("v"), 1));
        CHECK_OK(kvs_set_with_expiry(store, BYTES("k"), BYTES("v"), KVS_EXPIRY_NEVER));
        CHECK_FAILS(KVS_ERR_UNSUPPORTED, "expiry", kvs_set_expiry(store, BYTES("k"), 1, &before));
        CHECK_NUMBER(0, before);
        CHECK_OK(kvs_set_expiry(store, BYTES("k"), KVS_EXPIRY_NEVER, &before));
        CHECK(before == KVS_EXPIRY_NEVER);
        EXPIRY_IS(KVS_EXPIRY_NEVER, KVS_OK, "k");
        EXPIRY_IS(0, KVS_NOT_FOUND, "absent");
    }
    kvs_store_free(store);
}

const phase expiry_phases[] = {
    PHASE(an_expiry_is_told_changed_and_taken_off, PLAIN),
    PHASE(a_key_is_there_until_its_time_and_not_after, PLAIN),
    PHASE(a_batch_sets_keys_with_their_times, PLAIN),
    PHASE(what_is_too_long_is_refused_with_a_time_too, PLAIN),
    PHASE(an_engine_without_expiry_says_so, PLAIN),
    {NULL, PLAIN, NULL},
};
