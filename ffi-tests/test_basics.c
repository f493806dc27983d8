/* What a store does for a program that makes no mistakes. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void version_and_abi_fit_the_header(const char *dir) {
    char version[64];
    (void)dir;

    snprintf(version, sizeof version, "%d.%d.%d", KVS_VERSION_MAJOR, KVS_VERSION_MINOR,
             KVS_VERSION_PATCH);
    CHECK(strcmp(kvs_version(), version) == 0);
    CHECK_NUMBER(KVS_VERSION_NUMBER, kvs_version_number());
    CHECK_OK(kvs_check_abi(KVS_ABI_VERSION));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "ABI 77", kvs_check_abi(77));
}

static void statuses_have_names_and_sentences(const char *dir) {
    kvs_status status;
    int known = 0;
    (void)dir;

    CHECK(strcmp(kvs_status_name(KVS_ERR_LOCKED), "KVS_ERR_LOCKED") == 0);
    CHECK(strcmp(kvs_status_name(12345), "KVS_ERR_UNKNOWN") == 0);
    for (status = -40; status < 10; status++) {
        known += strcmp(kvs_status_name(status), "KVS_ERR_UNKNOWN") != 0;
        CHECK(strlen(kvs_status_text(status)) > 4);
    }
    CHECK_NUMBER(32, known);
}

static void defaults_of_options_can_be_read(const char *dir) {
    static const struct {
        int32_t id;
        uint64_t value;
    } defaults[] = {
        {KVS_OPT_DURABILITY, KVS_DURABILITY_INTERVAL},
        {KVS_OPT_ORDERED, 0},
        {KVS_OPT_READ_ONLY, 0},
        {KVS_OPT_COMPACTION_DEAD_PERCENT_MIN, 50},
        {KVS_OPT_SERVER_REQUEST_BYTES_MAX, 64u << 20},
        {KVS_OPT_SERVER_STALL_TIMEOUT_MS, 60000},
        {KVS_OPT_SYNC_INTERVAL_MS, 500},
        {KVS_OPT_READ_MODE, KVS_READ_MAPPED},
        {KVS_OPT_WRITE_MODE, KVS_WRITE_MODE_TAIL},
        {KVS_OPT_CREATE, 1},
        {KVS_OPT_EXCLUSIVE, 0},
        {KVS_OPT_LOCK_TIMEOUT_MS, 0},
        {KVS_OPT_SEGMENT_BYTES_MIN, 4194304},
        {KVS_OPT_SEGMENT_BYTES_MAX, 134217728},
        {KVS_OPT_AUTO_COMPACTION, 1},
        {KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX, 0},
        {KVS_OPT_SERVER_THREADS, 0},
        {KVS_OPT_SERVER_CONNECTIONS_MAX, 1024},
        {KVS_OPT_SERVER_LISTEN_FD, KVS_NO_FD},
    };
    kvs_options *options = kvs_options_new();
    size_t i;
    (void)dir;

    for (i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        uint64_t value = 99;
        CHECK_OK(kvs_options_get_u64(options, defaults[i].id, &value));
        CHECK_NUMBER(defaults[i].value, value);
    }
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SYNC_INTERVAL_MS, 20));
    {
        uint64_t value = 0;
        CHECK_OK(kvs_options_get_u64(options, KVS_OPT_SYNC_INTERVAL_MS, &value));
        CHECK_NUMBER(20, value);
    }
    kvs_options_free(options);
}

static void options_are_neither_kept_nor_consumed(const char *dir) {
    kvs_options *options = engine_options();
    kvs_store *one = NULL, *two = NULL;

    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_DURABILITY, KVS_DURABILITY_SYNC));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_READ_MODE, KVS_READ_POSITIONED));
    CHECK_OK(kvs_options_set_u64(options, KVS_OPT_SEGMENT_BYTES_MIN, 4096));
    CHECK_OK(kvs_open(path_in(dir, "one"), options, &one));
    CHECK_OK(kvs_open(path_in(dir, "two"), options, &two));
    kvs_options_free(options);

    CHECK_OK(kvs_set(one, BYTES("k"), BYTES("1")));
    CHECK_OK(kvs_set(two, BYTES("k"), BYTES("2")));
    CHECK_VALUE(one, "k", "1");
    CHECK_VALUE(two, "k", "2");
    kvs_store_free(one);
    kvs_store_free(two);
}

static void set_get_remove_and_len_agree(const char *dir) {
    kvs_store *store = open_store(dir);
    uint64_t count = 99;
    kvs_buf *buf = NULL;

    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(0, count);
    CHECK_OK(kvs_set(store, BYTES("no"), BYTES("Oslo")));
    CHECK_OK(kvs_set(store, BYTES("se"), BYTES("Stockholm")));
    CHECK_OK(kvs_set(store, BYTES("no"), BYTES("Bergen")));
    CHECK_VALUE(store, "no", "Bergen");
    CHECK_VALUE(store, "se", "Stockholm");
    CHECK_OK(kvs_contains(store, BYTES("se")));
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(2, count);

    CHECK_OK(kvs_remove(store, BYTES("se")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_remove(store, BYTES("se")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("se")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_get(store, BYTES("se"), &buf));
    CHECK(buf == NULL);
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(1, count);

    CHECK_OK(kvs_sync(store));
    CHECK_OK(kvs_compact(store));
    CHECK_VALUE(store, "no", "Bergen");
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
}

static void a_closed_store_opens_with_all_it_held(const char *dir) {
    kvs_store *store = open_store(dir);
    uint64_t count = 0;
    int i;

    for (i = 0; i < 1000; i++) {
        char key[32], value[32];
        int key_len = snprintf(key, sizeof key, "key %d", i);
        int value_len = snprintf(value, sizeof value, "value %d", i * i);
        CHECK_OK(kvs_set(store, key, (size_t)key_len, value, (size_t)value_len));
        if (i % 3 == 0) CHECK_OK(kvs_remove(store, key, (size_t)key_len));
    }
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);

    store = open_store(dir);
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(666, count);
    CHECK_VALUE(store, "key 2", "value 4");
    CHECK_VALUE(store, "key 998", "value 996004");
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("key 999")));
    kvs_store_free(store);
}

/* Empty, with zero bytes inside, and all ones: bytes are bytes. */
static void any_bytes_can_be_key_and_value(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_buf *buf = NULL;
    size_t len = 99;
    uint64_t count = 0;

    CHECK_OK(kvs_set(store, NULL, 0, BYTES("of the empty key")));
    CHECK_OK(kvs_set(store, BYTES("empty value"), NULL, 0));
    CHECK_OK(kvs_set(store, BYTES("a\0b"), BYTES("c\0\0d")));
    CHECK_OK(kvs_set(store, BYTES("a"), BYTES("not a\\0b")));
    CHECK_OK(kvs_set(store, BYTES("\xff\xff\xff"), BYTES("\xff\0\xff")));
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(5, count);

    CHECK_VALUE(store, "", "of the empty key");
    CHECK_VALUE(store, "empty value", "");
    CHECK_VALUE(store, "a\0b", "c\0\0d");
    CHECK_VALUE(store, "a", "not a\\0b");
    CHECK_VALUE(store, "\xff\xff\xff", "\xff\0\xff");

    /* An empty value is there, unlike an absent one, and its pointer is not NULL. */
    CHECK_OK(kvs_get(store, BYTES("empty value"), &buf));
    CHECK(kvs_buf_data(buf) != NULL);
    CHECK_NUMBER(0, kvs_buf_len(buf));
    kvs_buf_free(buf);
    CHECK_OK(kvs_get_into(store, BYTES("empty value"), NULL, 0, &len));
    CHECK_NUMBER(0, len);
    CHECK_OK(kvs_remove(store, NULL, 0));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, "ignored", 0));
    kvs_store_free(store);
}

static void get_into_copies_all_or_nothing(const char *dir) {
    kvs_store *store = open_store(dir);
    char room[8];
    size_t len = 99;

    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("12345")));
    memset(room, '.', sizeof room);
    CHECK_STATUS(KVS_TOO_SMALL, kvs_get_into(store, BYTES("k"), room, 4, &len));
    CHECK_NUMBER(5, len);
    CHECK(memcmp(room, "........", 8) == 0);
    CHECK_OK(kvs_get_into(store, BYTES("k"), room, 5, &len));
    CHECK_NUMBER(5, len);
    CHECK(memcmp(room, "12345...", 8) == 0);
    CHECK_STATUS(KVS_TOO_SMALL, kvs_get_into(store, BYTES("k"), NULL, 0, &len));
    CHECK_NUMBER(5, len);
    len = 99;
    CHECK_STATUS(KVS_NOT_FOUND, kvs_get_into(store, BYTES("absent"), room, 8, &len));
    CHECK_NUMBER(0, len);
    kvs_store_free(store);
}

static void longest_key_fits_and_one_byte_more_does_not(const char *dir) {
    kvs_store *store = open_store(dir);
    char *key = malloc(KVS_KEY_LEN_MAX + 1);
    kvs_buf *buf = NULL;
    uint64_t count = 0;

    memset(key, 'k', KVS_KEY_LEN_MAX + 1);
    CHECK_OK(kvs_set(store, key, KVS_KEY_LEN_MAX, BYTES("long")));
    CHECK_OK(kvs_get(store, key, KVS_KEY_LEN_MAX, &buf));
    CHECK(kvs_buf_len(buf) == 4 && memcmp(kvs_buf_data(buf), "long", 4) == 0);
    kvs_buf_free(buf);

    CHECK_FAILS(KVS_ERR_KEY_TOO_LONG, "65536",
                kvs_set(store, key, KVS_KEY_LEN_MAX + 1, BYTES("too long")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_get(store, key, KVS_KEY_LEN_MAX + 1, &buf));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, key, KVS_KEY_LEN_MAX + 1));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_remove(store, key, KVS_KEY_LEN_MAX + 1));
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(1, count);
    free(key);
    kvs_store_free(store);
}

static void large_values_come_back_whole(const char *dir) {
    const size_t len = 20u << 20;
    kvs_store *store = open_store(dir);
    unsigned char *value = malloc(len), *copy = malloc(len);
    kvs_buf *buf = NULL;
    size_t i, copied = 0;

    for (i = 0; i < len; i++) value[i] = (unsigned char)(i * 31 + (i >> 12));
    CHECK_OK(kvs_set(store, BYTES("large"), value, len));
    CHECK_OK(kvs_get(store, BYTES("large"), &buf));
    CHECK(kvs_buf_len(buf) == len && memcmp(kvs_buf_data(buf), value, len) == 0);
    CHECK_OK(kvs_get_into(store, BYTES("large"), copy, len, &copied));
    CHECK(copied == len && memcmp(copy, value, len) == 0);
    kvs_buf_free(buf);
    free(value);
    free(copy);
    kvs_store_free(store);
}

static void paths_may_hold_any_utf8(const char *dir) {
    kvs_store *store = open_store(path_in(dir, "\xe2\x82\xac space \xf0\x9f\xa6\x80"));
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_VALUE(store, "k", "v");
    kvs_store_free(store);
}

static void success_leaves_the_last_error_alone(const char *dir) {
    kvs_store *store = open_store(dir);
    char before[256];

    CHECK_FAILS(KVS_ERR_NULL, "key", kvs_set(store, NULL, 3, BYTES("v")));
    snprintf(before, sizeof before, "%s", kvs_last_error());
    CHECK_OK(kvs_set(store, BYTES("k"), BYTES("v")));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("absent")));
    CHECK(strcmp(kvs_last_error(), before) == 0);
    CHECK_NUMBER(0, kvs_last_os_error());
    kvs_store_free(store);
}

const phase basics_phases[] = {
    PHASE(version_and_abi_fit_the_header, PLAIN),
    PHASE(statuses_have_names_and_sentences, PLAIN),
    PHASE(defaults_of_options_can_be_read, PLAIN),
    PHASE(options_are_neither_kept_nor_consumed, PLAIN),
    PHASE(set_get_remove_and_len_agree, PLAIN),
    PHASE(a_closed_store_opens_with_all_it_held, PLAIN),
    PHASE(any_bytes_can_be_key_and_value, PLAIN),
    PHASE(get_into_copies_all_or_nothing, PLAIN),
    PHASE(longest_key_fits_and_one_byte_more_does_not, PLAIN),
    PHASE(large_values_come_back_whole, PLAIN),
    PHASE(paths_may_hold_any_utf8, PLAIN),
    PHASE(success_leaves_the_last_error_alone, PLAIN),
    {NULL, PLAIN, NULL},
};
