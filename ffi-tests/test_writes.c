/* Writes of more than one step: batches, swap, compare-and-swap; and many lookups in one call. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

static void a_batch_is_applied_whole_and_left_as_it_is(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();
    uint64_t count = 0;

    CHECK_OK(kvs_set(store, BYTES("pending"), BYTES("x")));
    CHECK_OK(kvs_batch_set(batch, BYTES("from"), BYTES("90")));
    CHECK_OK(kvs_batch_set(batch, BYTES("to"), BYTES("100")));
    CHECK_OK(kvs_batch_set(batch, BYTES("to"), BYTES("110")));
    CHECK_OK(kvs_batch_set(batch, BYTES(""), BYTES("")));
    CHECK_OK(kvs_batch_remove(batch, BYTES("pending")));
    CHECK_OK(kvs_batch_remove(batch, BYTES("absent")));
    CHECK_NUMBER(6, kvs_batch_count(batch));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("from")));

    CHECK_OK(kvs_write(store, batch, 0));
    CHECK_VALUE(store, "from", "90");
    CHECK_VALUE(store, "to", "110");
    CHECK_VALUE(store, "", "");
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(3, count);

    /* Again, after somebody else wrote. */
    CHECK_NUMBER(6, kvs_batch_count(batch));
    CHECK_OK(kvs_set(store, BYTES("to"), BYTES("0")));
    CHECK_OK(kvs_write(store, batch, KVS_WRITE_SYNC));
    CHECK_VALUE(store, "to", "110");

    /* Cleared, it does nothing. */
    kvs_batch_clear(batch);
    CHECK_NUMBER(0, kvs_batch_count(batch));
    CHECK_OK(kvs_remove(store, BYTES("to")));
    CHECK_OK(kvs_write(store, batch, KVS_WRITE_SYNC));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("to")));
    kvs_store_free(store);
    kvs_batch_free(batch);
}

static void a_batch_is_there_after_reopening(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();
    uint32_t i;
    uint64_t count = 0;

    for (i = 0; i < 10000; i++) CHECK_OK(kvs_batch_set(batch, &i, sizeof i, &i, sizeof i));
    CHECK_OK(kvs_write(store, batch, 0));
    kvs_batch_free(batch);
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
    store = open_store(dir);
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(10000, count);
    kvs_store_free(store);
}

static void what_a_batch_cannot_take_is_refused_and_leaves_it_as_it_was(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();
    const size_t key_len = KVS_KEY_LEN_MAX, value_len = (size_t)32 << 20;
    char *bytes = calloc(1, value_len);
    uint64_t count = 99;
    int i;

    CHECK_OK(kvs_batch_set(batch, bytes, key_len, BYTES("v")));
    CHECK_OK(kvs_batch_remove(batch, bytes, key_len));
    CHECK_FAILS(KVS_ERR_KEY_TOO_LONG, "65536", kvs_batch_set(batch, bytes, key_len + 1, "", 0));
    CHECK_FAILS(KVS_ERR_KEY_TOO_LONG, "65536", kvs_batch_remove(batch, bytes, key_len + 1));
    CHECK_FAILS(KVS_ERR_VALUE_TOO_LONG, "1073741825",
                kvs_batch_set(batch, "k", 1, bytes, (size_t)KVS_VALUE_LEN_MAX + 1));
    CHECK_NUMBER(2, kvs_batch_count(batch));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "0x6", kvs_write(store, batch, 7));

    /* Four values of 32 MiB are over 96 MiB, without the longest of them they are not. */
    for (i = 0; i < 5; i++) CHECK_OK(kvs_batch_set(batch, &i, sizeof i, bytes, value_len));
    if (engine_is("kvs"))
        CHECK_FAILS(KVS_ERR_BATCH_TOO_LONG, "split", kvs_write(store, batch, 0));
    if (engine_is("kvs")) CHECK_OK(kvs_len(store, &count));
    if (engine_is("kvs")) CHECK_NUMBER(0, count);
    free(bytes);
    kvs_batch_free(batch);
    kvs_store_free(store);
}

/* Whether a buffer holds these bytes; NULL for text means no buffer. Frees it. */
static int holds(kvs_buf *buf, const char *text) {
    int same = text == NULL ? buf == NULL
                            : buf != NULL && kvs_buf_len(buf) == strlen(text) &&
                                  memcmp(kvs_buf_data(buf), text, strlen(text)) == 0;
    kvs_buf_free(buf);
    return same;
}

static void swap_tells_what_was_there(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_buf *previous = (kvs_buf *)1;

    CHECK_OK(kvs_swap(store, BYTES("k"), BYTES("1"), &previous));
    CHECK(holds(previous, NULL));
    CHECK_OK(kvs_swap(store, BYTES("k"), BYTES(""), &previous));
    CHECK(holds(previous, "1"));
    /* Removed, and was empty rather than absent. */
    CHECK_OK(kvs_swap(store, BYTES("k"), NULL, 0, &previous));
    CHECK(holds(previous, ""));
    CHECK_STATUS(KVS_NOT_FOUND, kvs_contains(store, BYTES("k")));
    CHECK_OK(kvs_swap(store, BYTES("k"), NULL, 0, &previous));
    CHECK(holds(previous, NULL));
    /* Nobody asks. */
    CHECK_OK(kvs_swap(store, BYTES("k"), BYTES("2"), NULL));
    CHECK_VALUE(store, "k", "2");
    kvs_store_free(store);
}

/* Absent, empty and something are three things, as what is there, as what is expected and as what
 * is desired. */
static void compare_and_swap_tells_absent_from_empty(const char *dir) {
    static const char *const values[] = {NULL, "", "1"};
    kvs_store *store = open_store(dir);
    int there, expected, desired;

    for (there = 0; there < 3; there++)
        for (expected = 0; expected < 3; expected++)
            for (desired = 0; desired < 3; desired++) {
                const char *t = values[there], *e = values[expected], *d = values[desired];
                kvs_buf *buf = (kvs_buf *)1;
                CHECK_OK(kvs_swap(store, BYTES("k"), t, t ? strlen(t) : 0, NULL));
                CHECK_STATUS(there == expected ? KVS_OK : KVS_MISMATCH,
                             kvs_compare_and_swap(store, BYTES("k"), e, e ? strlen(e) : 0, d,
                                                  d ? strlen(d) : 0, &buf));
                CHECK(holds(buf, there == expected ? NULL : t));
                CHECK_OK(kvs_swap(store, BYTES("k"), NULL, 0, &buf));
                CHECK(holds(buf, there == expected ? d : t));
            }
    CHECK_STATUS(KVS_MISMATCH,
                 kvs_compare_and_swap(store, BYTES("k"), BYTES("x"), BYTES("y"), NULL));
    kvs_store_free(store);
}

static void many_keys_are_looked_up_in_one_call(const char *dir) {
    static const char keys[] = "\2\0\0\0no\0\0\0\0\2\0\0\0se\2\0\0\0no";
    static const char values[] = "\4\0\0\0Oslo\0\0\0\0\xff\xff\xff\xff\4\0\0\0Oslo";
    kvs_store *store = open_store(dir);
    kvs_buf *buf = NULL;

    CHECK_OK(kvs_set(store, BYTES("no"), BYTES("Oslo")));
    CHECK_OK(kvs_set(store, BYTES(""), BYTES("")));
    CHECK_OK(kvs_get_many(store, BYTES(keys), 4, &buf));
    CHECK_NUMBER(sizeof values - 1, kvs_buf_len(buf));
    CHECK(memcmp(kvs_buf_data(buf), values, sizeof values - 1) == 0);
    kvs_buf_free(buf);

    CHECK_OK(kvs_get_many(store, NULL, 0, 0, &buf));
    CHECK_NUMBER(0, kvs_buf_len(buf));
    kvs_buf_free(buf);

    CHECK_FAILS(KVS_ERR_INVALID, "packed_keys", kvs_get_many(store, BYTES(keys), 3, &buf));
    CHECK_FAILS(KVS_ERR_INVALID, "packed_keys", kvs_get_many(store, BYTES(keys), 5, &buf));
    CHECK_FAILS(KVS_ERR_INVALID, "packed_keys", kvs_get_many(store, keys, 5, 1, &buf));
    CHECK_FAILS(KVS_ERR_INVALID, "packed_keys",
                kvs_get_many(store, keys, sizeof keys - 1, (size_t)-1, &buf));
    CHECK(buf == NULL);
    kvs_store_free(store);
}

/* One long value, asked for so often that the answer would not fit into memory. */
static void an_answer_over_the_limit_is_refused(const char *dir) {
    enum { VALUE_LEN = 16 << 20, TIMES = 65 };
    kvs_store *store = open_store(dir);
    char *value = calloc(1, VALUE_LEN), keys[TIMES * 5];
    kvs_buf *buf = NULL;
    int i;

    CHECK_OK(kvs_set(store, "k", 1, value, VALUE_LEN));
    for (i = 0; i < TIMES; i++) memcpy(keys + i * 5, "\1\0\0\0k", 5);
    CHECK_FAILS(KVS_ERR_INVALID, "smaller",
                kvs_get_many(store, keys, sizeof keys, TIMES, &buf));
    CHECK(buf == NULL);
    CHECK_OK(kvs_get_many(store, keys, 10, 2, &buf));
    CHECK_NUMBER(2 * (4 + VALUE_LEN), kvs_buf_len(buf));
    kvs_buf_free(buf);
    free(value);
    kvs_store_free(store);
}

static void clear_removes_every_key(const char *dir) {
    kvs_store *store = open_store(dir);
    uint64_t count = 99;
    uint32_t i;

    CHECK_OK(kvs_clear(store)); /* Nothing there is no failure. */
    for (i = 0; i < 1000; i++) CHECK_OK(kvs_set(store, &i, sizeof i, BYTES("v")));
    CHECK_OK(kvs_clear(store));
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(0, count);
    CHECK_OK(kvs_set(store, BYTES("later"), BYTES("v")));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
    store = open_store(dir);
    CHECK_OK(kvs_len(store, &count));
    CHECK_NUMBER(1, count);
    CHECK_VALUE(store, "later", "v");
    kvs_store_free(store);
}

const phase writes_phases[] = {
    PHASE(clear_removes_every_key, PLAIN),
    PHASE(a_batch_is_applied_whole_and_left_as_it_is, PLAIN),
    PHASE(a_batch_is_there_after_reopening, PLAIN),
    PHASE(what_a_batch_cannot_take_is_refused_and_leaves_it_as_it_was, PLAIN),
    PHASE(swap_tells_what_was_there, PLAIN),
    PHASE(compare_and_swap_tells_absent_from_empty, PLAIN),
    PHASE(many_keys_are_looked_up_in_one_call, PLAIN),
    PHASE(an_answer_over_the_limit_is_refused, PLAIN),
    {NULL, PLAIN, NULL},
};
