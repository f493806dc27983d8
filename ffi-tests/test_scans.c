/* Scans: which keys they see, in which order, and what the pointers they hand out are worth. */
#include "harness.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A store that holds each of these keys, with itself twice as its value. */
static kvs_store *store_of(const char *dir, const char *const *keys, size_t count) {
    kvs_store *store = open_store(dir);
    size_t i;
    for (i = 0; i < count; i++) {
        char value[64];
        int len = snprintf(value, sizeof value, "%s%s", keys[i], keys[i]);
        CHECK_OK(kvs_set(store, keys[i], strlen(keys[i]), value, (size_t)len));
    }
    return store;
}

/* The rest of a scan as text: "key=value " for each record. Frees the iterator. */
static const char *rest_of(kvs_iter *iter) {
    static char text[1024];
    const void *key, *value;
    size_t key_len, value_len, used = 0;
    kvs_status status;

    text[0] = '\0';
    while ((status = kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK)
        used += (size_t)snprintf(text + used, sizeof text - used, "%.*s=%.*s ", (int)key_len,
                                 (const char *)key, (int)value_len, (const char *)value);
    CHECK_STATUS(KVS_END, status);
    CHECK(key == NULL && key_len == 0 && value == NULL && value_len == 0);
    CHECK_STATUS(KVS_END, kvs_iter_next(iter, &key, &key_len, &value, &value_len));
    kvs_iter_free(iter);
    return text;
}

static void check_rest(kvs_iter *iter, const char *expected, int line) {
    const char *text = rest_of(iter);
    if (strcmp(text, expected) != 0)
        fail(__FILE__, line, "the scan sees \"%s\", not \"%s\"", text, expected);
}

static void bounds_prefix_and_direction_are_obeyed(const char *dir) {
    static const char *const keys[] = {"b", "", "ab", "a", "c", "aa"};
    static const struct {
        const char *start, *end;
        uint32_t flags;
        const char *sees;
    } cases[] = {
        {NULL, NULL, 0, "= a=aa aa=aaaa ab=abab b=bb c=cc "},
        {"", NULL, 0, "= a=aa aa=aaaa ab=abab b=bb c=cc "},
        {"a", "b", 0, "a=aa aa=aaaa ab=abab "},
        {"aa", NULL, 0, "aa=aaaa ab=abab b=bb c=cc "},
        {NULL, "aa", 0, "= a=aa "},
        {NULL, "", 0, ""},
        {"b", "a", 0, ""},
        {"a", "a", 0, ""},
        {NULL, NULL, KVS_SCAN_REVERSE, "c=cc b=bb ab=abab aa=aaaa a=aa = "},
        {"a", "b", KVS_SCAN_REVERSE, "ab=abab aa=aaaa a=aa "},
        {"a", "b", KVS_SCAN_KEYS_ONLY, "a= aa= ab= "},
        {"aa", NULL, KVS_SCAN_REVERSE | KVS_SCAN_KEYS_ONLY, "c= b= ab= aa= "},
    };
    static const struct {
        const char *prefix;
        uint32_t flags;
        const char *sees;
    } prefixes[] = {
        {"a", 0, "a=aa aa=aaaa ab=abab "},
        {"a", KVS_SCAN_REVERSE, "ab=abab aa=aaaa a=aa "},
        {"ab", KVS_SCAN_KEYS_ONLY, "ab= "},
        {"d", 0, ""},
        {"", 0, "= a=aa aa=aaaa ab=abab b=bb c=cc "},
    };
    kvs_store *store = store_of(dir, keys, sizeof keys / sizeof keys[0]);
    size_t i;

    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *start = cases[i].start, *end = cases[i].end;
        kvs_iter *iter = NULL;
        CHECK_OK(kvs_scan(store, start, start ? strlen(start) : 0, end, end ? strlen(end) : 0,
                          cases[i].flags, &iter));
        check_rest(iter, cases[i].sees, __LINE__);
    }
    for (i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        kvs_iter *iter = NULL;
        CHECK_OK(kvs_scan_prefix(store, prefixes[i].prefix, strlen(prefixes[i].prefix),
                                 prefixes[i].flags, &iter));
        check_rest(iter, prefixes[i].sees, __LINE__);
    }
    kvs_store_free(store);
}

static void bytes_are_ordered_without_a_sign(const char *dir) {
    static const char *const keys[] = {"\xff\xff", "\x7f", "\xff", "\x80"};
    kvs_store *store = store_of(dir, keys, 4);
    kvs_iter *iter = NULL;

    CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, KVS_SCAN_KEYS_ONLY, &iter));
    check_rest(iter, "\x7f= \x80= \xff= \xff\xff= ", __LINE__);
    CHECK_OK(kvs_scan_prefix(store, BYTES("\xff"), KVS_SCAN_KEYS_ONLY, &iter));
    check_rest(iter, "\xff= \xff\xff= ", __LINE__);
    kvs_store_free(store);
}

static void unknown_flags_are_refused(const char *dir) {
    kvs_store *store = open_store(dir);
    kvs_iter *iter = (kvs_iter *)1;

    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "0x4", kvs_scan(store, NULL, 0, NULL, 0, 5, &iter));
    CHECK(iter == NULL);
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "0x80000000",
                kvs_scan_prefix(store, NULL, 0, 0x80000000u, &iter));
    CHECK_FAILS(KVS_ERR_UNSUPPORTED, "0x1", kvs_scan_unordered(store, KVS_SCAN_REVERSE, &iter));
    kvs_store_free(store);
}

/* What the iterator handed out last outlives the key, the close and the store, until the next
 * call. */
static void pointers_are_good_until_the_next_call(const char *dir) {
    static const char *const keys[] = {"a", "b"};
    kvs_store *store = store_of(dir, keys, 2);
    kvs_iter *iter = NULL;
    const void *key = NULL, *value = NULL;
    size_t key_len, value_len;

    CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, 0, &iter));
    CHECK_OK(kvs_iter_next(iter, &key, &key_len, &value, &value_len));
    CHECK_OK(kvs_set(store, BYTES("a"), BYTES("other")));
    CHECK_OK(kvs_compact(store));
    CHECK_OK(kvs_close(store));
    kvs_store_free(store);
    CHECK(key_len == 1 && memcmp(key, "a", 1) == 0);
    CHECK(value_len == 2 && memcmp(value, "aa", 2) == 0);
    CHECK_FAILS(KVS_ERR_CLOSED, "closed",
                kvs_iter_next(iter, &key, &key_len, &value, &value_len));
    kvs_iter_free(iter);
}

/* Every key of `count` set in a store, seen once: by kvs_iter_next, by kvs_iter_next_many in memory
 * of many sizes, and by the two in turn. */
static void check_all_seen_once(kvs_iter *iter, uint32_t count, size_t capacity, int in_turn) {
    unsigned char *seen = calloc(count, 1), *dst = malloc(capacity);
    uint32_t total = 0, turn;

    for (turn = 0;; turn++) {
        size_t used = 0, records = 0, needed = 0, at = 0, key_len, value_len;
        kvs_status status;
        if (in_turn && turn % 2 == 0) {
            const void *key, *value;
            status = kvs_iter_next(iter, &key, &key_len, &value, &value_len);
            if (status != KVS_OK) {
                CHECK_STATUS(KVS_END, status);
                break;
            }
            memcpy(dst, "\4\0\0\0", 4);
            dst[4] = (unsigned char)value_len;
            memset(dst + 5, 0, 3);
            CHECK(key_len == 4 && value_len < 256);
            memcpy(dst + 8, key, 4);
            memcpy(dst + 12, value, value_len);
            used = 12 + value_len;
            records = 1;
        } else {
            status = kvs_iter_next_many(iter, dst, capacity, &used, &records, &needed);
            if (status == KVS_TOO_SMALL) {
                CHECK(used == 0 && records == 0 && needed > capacity);
                dst = realloc(dst, capacity = needed);
                continue;
            }
            CHECK_NUMBER(0, needed);
            if (status != KVS_OK) {
                CHECK_STATUS(KVS_END, status);
                CHECK(used == 0 && records == 0);
                break;
            }
            CHECK(records > 0 && used <= capacity);
        }
        for (; records > 0; records--) {
            uint32_t key = 0, i;
            CHECK(memcmp(dst + at, "\4\0\0\0", 4) == 0 && memcmp(dst + at + 5, "\0\0\0", 3) == 0);
            value_len = dst[at + 4];
            memcpy(&key, dst + at + 8, 4);
            if (!CHECK(key < count)) break;
            CHECK(value_len == key % 200 && seen[key]++ == 0);
            for (i = 0; i < value_len; i++) CHECK(dst[at + 12 + i] == (unsigned char)key);
            at += 12 + value_len;
            total++;
        }
        CHECK_NUMBER(used, at);
    }
    CHECK_NUMBER(count, total);
    free(seen);
    free(dst);
    kvs_iter_free(iter);
}

static void packed_records_are_whole_and_each_comes_once(const char *dir) {
    const uint32_t count = (uint32_t)rounds(3000);
    static const size_t capacities[] = {0, 11, 12, 100, 211, 212, 4096, 65536, 10000000};
    kvs_store *store = open_store(dir);
    kvs_batch *batch = kvs_batch_new();
    kvs_iter *iter = NULL;
    size_t c;
    uint32_t key;

    for (key = 0; key < count; key++) {
        unsigned char value[200];
        memset(value, (int)(key & 255), sizeof value);
        CHECK_OK(kvs_batch_set(batch, &key, sizeof key, value, key % 200));
    }
    CHECK_OK(kvs_write(store, batch, 0));
    kvs_batch_free(batch);
    for (c = 0; c < sizeof capacities / sizeof capacities[0]; c++) {
        CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, c % 2 ? KVS_SCAN_REVERSE : 0, &iter));
        check_all_seen_once(iter, count, capacities[c], 0);
        CHECK_OK(kvs_scan_unordered(store, 0, &iter));
        check_all_seen_once(iter, count, capacities[c], 0);
        if (capacities[c] < 212) continue;
        CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, 0, &iter));
        check_all_seen_once(iter, count, capacities[c], 1);
        CHECK_OK(kvs_scan_unordered(store, 0, &iter));
        check_all_seen_once(iter, count, capacities[c], 1);
    }
    kvs_store_free(store);
}

/* A record that did not fit is the next one, by whichever way. */
static void check_leftover_has_no_value(kvs_store *store, int ordered) {
    char dst[4];
    size_t used, count, needed = 0, key_len = 0, value_len = 99;
    const void *key, *value;
    kvs_iter *iter = NULL;

    if (ordered) CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, KVS_SCAN_KEYS_ONLY, &iter));
    else CHECK_OK(kvs_scan_unordered(store, KVS_SCAN_KEYS_ONLY, &iter));
    CHECK_STATUS(KVS_TOO_SMALL,
                 kvs_iter_next_many(iter, dst, sizeof dst, &used, &count, &needed));
    CHECK(needed == 9 || needed == 10);
    CHECK_OK(kvs_iter_next(iter, &key, &key_len, &value, &value_len));
    CHECK_NUMBER(needed - 8, key_len);
    CHECK_NUMBER(0, value_len);
    kvs_iter_free(iter);
}

static void keys_alone_are_packed_without_values(const char *dir) {
    static const char *const keys[] = {"a", "bc"};
    static const char packed[] = "\1\0\0\0\0\0\0\0a\2\0\0\0\0\0\0\0bc";
    kvs_store *store = store_of(dir, keys, 2);
    char dst[64];
    size_t used = 0, count = 0, needed = 0;
    kvs_iter *iter = NULL;

    CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, KVS_SCAN_KEYS_ONLY, &iter));
    CHECK_OK(kvs_iter_next_many(iter, dst, sizeof dst, &used, &count, &needed));
    CHECK(used == sizeof packed - 1 && memcmp(dst, packed, used) == 0);
    CHECK(count == 2 && needed == 0);
    kvs_iter_free(iter);
    CHECK_OK(kvs_scan_unordered(store, KVS_SCAN_KEYS_ONLY, &iter));
    CHECK_OK(kvs_iter_next_many(iter, dst, sizeof dst, &used, &count, &needed));
    CHECK(used == sizeof packed - 1 && count == 2);
    kvs_iter_free(iter);
    check_leftover_has_no_value(store, 1);
    check_leftover_has_no_value(store, 0);
    kvs_store_free(store);
}

/* What a scan of a damaged store comes to: how many records there were, and how many failures. */
typedef struct outcome {
    int records, failures;
} outcome;

static outcome scan_damaged(kvs_store *store, int ordered, int many) {
    outcome found = {0, 0};
    kvs_iter *iter = NULL;
    kvs_status status = ordered ? kvs_scan(store, NULL, 0, NULL, 0, 0, &iter)
                                : kvs_scan_unordered(store, 0, &iter);
    while (CHECK(found.records + found.failures <= 200)) {
        char dst[4096];
        const void *key, *value;
        size_t used, count = 1, needed, key_len, value_len;
        if (many) status = kvs_iter_next_many(iter, dst, sizeof dst, &used, &count, &needed);
        else status = kvs_iter_next(iter, &key, &key_len, &value, &value_len);
        if (status == KVS_END) break;
        if (status == KVS_OK) found.records += (int)count;
        else if (CHECK_FAILS(KVS_ERR_CORRUPT, "seg-", status)) found.failures++;
    }
    kvs_iter_free(iter);
    return found;
}

/* Without the hints of its files a store knows less of what is damaged, and doubts more. */
static void remove_hints(const char *dir) {
    DIR *list = opendir(dir);
    struct dirent *entry;
    int removed = 0;
    while (list != NULL && (entry = readdir(list)) != NULL)
        if (strstr(entry->d_name, ".hint") != NULL)
            removed += unlink(path_in(dir, entry->d_name)) == 0;
    if (list != NULL) closedir(list);
    CHECK(removed > 0);
}

static void damage_is_met_by_either_way_to_read(const char *dir) {
    char value[1000];
    kvs_store *store;
    uint32_t key;
    int hints, ordered;

    if (!engine_is("kvs")) return;
    store = open_store(dir);
    memset(value, 'v', sizeof value);
    for (key = 0; key < 100; key++) CHECK_OK(kvs_set(store, &key, sizeof key, value, sizeof value));
    kvs_store_free(store);
    damage(dir);
    for (hints = 1; hints >= 0; hints--) {
        if (!hints) remove_hints(dir);
        store = open_store(dir);
        for (ordered = 0; ordered < 2; ordered++) {
            const outcome one = scan_damaged(store, ordered, 0);
            const outcome many = scan_damaged(store, ordered, 1);
            if (hints) CHECK_NUMBER(99, one.records);
            CHECK(one.failures > 0);
            CHECK_NUMBER(one.records, many.records);
            CHECK_NUMBER(one.failures, many.failures);
        }
        kvs_store_free(store);
    }
}

static void iterators_and_store_are_freed_in_any_order(const char *dir) {
    static const char *const keys[] = {"a", "b", "c"};
    int order;

    for (order = 0; order < 4; order++) {
        kvs_store *store = store_of(path_in(dir, order % 2 ? "x" : "y"), keys, 3);
        kvs_iter *first = NULL, *second = NULL;
        const void *key, *value;
        size_t key_len, value_len;
        CHECK_OK(kvs_scan(store, NULL, 0, NULL, 0, 0, &first));
        CHECK_OK(kvs_scan_unordered(store, 0, &second));
        CHECK_OK(kvs_iter_next(first, &key, &key_len, &value, &value_len));
        CHECK_OK(kvs_iter_next(second, &key, &key_len, &value, &value_len));
        if (order & 1) kvs_iter_free(first);
        if (order & 2) kvs_iter_free(second);
        /* The directory is free at once, iterators or not. */
        kvs_store_free(store);
        store = open_store(path_in(dir, order % 2 ? "x" : "y"));
        CHECK_VALUE(store, "a", "aa");
        kvs_store_free(store);
        if (!(order & 1)) kvs_iter_free(first);
        if (!(order & 2)) kvs_iter_free(second);
    }
}

const phase scans_phases[] = {
    PHASE(bounds_prefix_and_direction_are_obeyed, PLAIN),
    PHASE(bytes_are_ordered_without_a_sign, PLAIN),
    PHASE(unknown_flags_are_refused, PLAIN),
    PHASE(pointers_are_good_until_the_next_call, PLAIN),
    PHASE(packed_records_are_whole_and_each_comes_once, PLAIN),
    PHASE(damage_is_met_by_either_way_to_read, PLAIN),
    PHASE(keys_alone_are_packed_without_values, PLAIN),
    PHASE(iterators_and_store_are_freed_in_any_order, PLAIN),
    {NULL, PLAIN, NULL},
};
