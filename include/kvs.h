/*
 * kvs: an embeddable key-value store.
 *
 *     kvs_store *store = NULL;
 *     if (kvs_open("cities", NULL, &store) < 0 ||
 *         kvs_set(store, "no", 2, "Oslo", 4) < 0)
 *         fprintf(stderr, "%s\n", kvs_last_error());
 *     kvs_close(store);
 *     kvs_store_free(store);
 *
 * Printed from the Rust sources by cbindgen: change those and run `make header`.
 *
 * Conventions, true of every function unless it says otherwise
 *
 *   Status    0 is done, above 0 is an answer that is not a failure (KVS_NOT_FOUND), below 0 is a
 *             failure: test (status < 0). Numbers never change meaning. kvs_last_error has the
 *             details of the last failure on the calling thread. Beside the statuses it names, a
 *             function may return KVS_ERR_PANIC, KVS_ERR_PERMISSION instead of KVS_ERR_IO, and
 *             on the engine sled KVS_ERR_ENGINE.
 *   Order     The handle comes first, then inputs, then outputs. Outputs are set to NULL or 0 at
 *             once and to a result only on success.
 *   Bytes     Keys and values are bytes with a length. They may be empty, may hold zero bytes, and
 *             need no terminator. With length 0 the pointer may be anything, NULL included. Keys
 *             have at most KVS_KEY_LEN_MAX bytes, values KVS_VALUE_LEN_MAX; a longer key is never
 *             found. A length that no object can have, such as -1, is KVS_ERR_INVALID.
 *   Ownership Inputs are borrowed for the call and copied. What a function makes is freed by the
 *             function its comment names, never by free(). Every _free function accepts NULL.
 *   NULL      where an object is needed gives KVS_ERR_NULL, and kvs_last_error names the argument.
 *   Threads   "any" means: from any thread, beside any other call. No call calls back into your
 *             program, and none unwinds through it.
 *   Fork      In the child every call on a handle of the parent says KVS_ERR_FORKED; the _free
 *             functions release memory and touch neither files nor threads nor locks. The parent
 *             goes on unharmed. Opening a store in the child of a program with several threads is
 *             only sound after exec.
 *   Manners   The library prints nothing, installs no signal handler, never exits, and reads no
 *             environment variable. Its threads are called kvs-* and take no signals.
 *   Since     Functions are there since 0.1.0 unless they say so.
 *
 * What you promise; a function's "Safety" names those it relies on
 *
 *   1. A handle came from the function that makes it and has not been given to its _free function.
 *   2. A pointer to an input points at as many readable bytes as its length says, or at a string
 *      that ends in a zero byte; they do not change during the call.
 *   3. A pointer to an output is aligned, writable, and used by nothing else during the call.
 *   4. The call that frees a handle is the last one to use it, on any thread.
 *   5. A kvs_options is used by one thread at a time.
 *
 * Linking: link the shared library, or the static one with KVS_STATIC defined. Two static
 * libraries written in Rust do not go into one program.
 */
#ifndef KVS_H
#define KVS_H


#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(KVS_STATIC)
#define KVS_API __declspec(dllimport)
#else
#define KVS_API
#endif

/* On functions whose status nobody should drop. */
#if defined(__GNUC__)
#define KVS_MUST_USE __attribute__((warn_unused_result))
#else
#define KVS_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif


/**
 * The ABI that this header describes. 0 until the first release, which promises nothing yet; then
 * 1, and another number only when a program compiled with an older header would break.
 */
#define KVS_ABI_VERSION 0

/**
 * The version of this header. See kvs_version_number for the library's.
 */
#define KVS_VERSION_MAJOR 0

/**
 * See KVS_VERSION_MAJOR.
 */
#define KVS_VERSION_MINOR 1

/**
 * See KVS_VERSION_MAJOR.
 */
#define KVS_VERSION_PATCH 0

/**
 * The three parts as one number that compares like the versions do.
 */
#define KVS_VERSION_NUMBER (((KVS_VERSION_MAJOR << 24) | (KVS_VERSION_MINOR << 16)) | (KVS_VERSION_PATCH << 8))

/**
 * Longest key, in bytes.
 */
#define KVS_KEY_LEN_MAX 65535

/**
 * Longest value, in bytes (1 GiB).
 */
#define KVS_VALUE_LEN_MAX 1073741824

/**
 * Text: the engine, "kvs" or "sled". Default: what the directory holds, else "kvs".
 */
#define KVS_OPT_ENGINE 1

/**
 * Number: what a returned write survives, one of KVS_DURABILITY_*.
 */
#define KVS_OPT_DURABILITY 2

/**
 * Number: milliseconds between syncs with KVS_DURABILITY_INTERVAL. At least 1.
 */
#define KVS_OPT_SYNC_INTERVAL_MS 3

/**
 * Number: how records are read, one of KVS_READ_*.
 */
#define KVS_OPT_READ_MODE 4

/**
 * Number: 1 creates a store where there is none, 0 says KVS_ERR_NO_STORE then.
 */
#define KVS_OPT_CREATE 5

/**
 * Number: 1 says KVS_ERR_STORE_EXISTS where there is a store already, 0 opens it.
 */
#define KVS_OPT_EXCLUSIVE 6

/**
 * Number: milliseconds to wait for another opener to let go before KVS_ERR_LOCKED.
 */
#define KVS_OPT_LOCK_TIMEOUT_MS 7

/**
 * Number: smallest size at which a segment file is sealed, in bytes.
 */
#define KVS_OPT_SEGMENT_BYTES_MIN 8

/**
 * Number: largest size of a segment file, in bytes: 4096 to 134217728. A larger record has a
 * segment of its own.
 */
#define KVS_OPT_SEGMENT_BYTES_MAX 9

/**
 * Number: 1 gives dead space back in the background, 0 only in kvs_compact.
 */
#define KVS_OPT_AUTO_COMPACTION 10

/**
 * Number: most bytes that background compaction copies per second; 0 sets no limit.
 */
#define KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX 11

/**
 * Text: the server's thread pool, "shared-queue", "rayon" or "naive" (a thread per job).
 * Default: "shared-queue".
 */
#define KVS_OPT_SERVER_POOL 1000

/**
 * Number: threads of the server's pool; 0 takes one per processor.
 */
#define KVS_OPT_SERVER_THREADS 1001

/**
 * Number: most connections at a time; further clients get an error and are cut off.
 */
#define KVS_OPT_SERVER_CONNECTIONS_MAX 1002

/**
 * Number: a descriptor that listens already, such as one from a service manager, to be used
 * instead of the address. It must be open when kvs_server_start is called, which duplicates it
 * and makes it non-blocking; yours stays yours. KVS_NO_FD, the default, uses the address.
 */
#define KVS_OPT_SERVER_LISTEN_FD 1003

/**
 * A returned write survives the death of the process (kill -9). When power fails, what the
 * operating system had not written yet is lost.
 */
#define KVS_DURABILITY_OS 0

/**
 * As KVS_DURABILITY_OS, and power loss costs at most the last KVS_OPT_SYNC_INTERVAL_MS. The
 * default.
 */
#define KVS_DURABILITY_INTERVAL 1

/**
 * A returned write survives power loss. Writers that wait at the same time share one sync.
 */
#define KVS_DURABILITY_SYNC 2

/**
 * Read through a mapping of the files: fastest. A disk that fails under a mapped page kills the
 * process with SIGBUS. The default.
 */
#define KVS_READ_MAPPED 0

/**
 * Read by system calls: a failing disk is a KVS_ERR_IO. Several times slower.
 */
#define KVS_READ_POSITIONED 1

/**
 * In KVS_OPT_SERVER_LISTEN_FD: none.
 */
#define KVS_NO_FD 4294967295

/**
 * As a time to wait: without end.
 */
#define KVS_WAIT_FOREVER 4294967295

/**
 * The bytes of one value. Read-only, so it may be shared between threads.
 */
typedef struct kvs_buf kvs_buf;

/**
 * Choices for kvs_open and kvs_server_start, by number. Used by one thread at a time; neither
 * function keeps or changes it, so one may serve many calls.
 */
typedef struct kvs_options kvs_options;

/**
 * A server that was started. All calls on it may be made from any thread at once, kvs_server_free
 * excepted.
 */
typedef struct kvs_server kvs_server;

/**
 * An open store. All calls on it may be made from any thread at once, kvs_store_free excepted.
 */
typedef struct kvs_store kvs_store;

/**
 * The result of nearly every function: KVS_OK, a positive KVS_* that is an answer and not a
 * failure, or a negative KVS_ERR_*. So failures are found by (status < 0).
 */
typedef int32_t kvs_status;

/**
 * Done.
 */
#define KVS_OK 0

/**
 * The key is not there.
 */
#define KVS_NOT_FOUND 1

/**
 * The buffer is too small. Nothing was copied; the length to make room for was stored.
 */
#define KVS_TOO_SMALL 4

/**
 * The time is over and what was waited for has not happened.
 */
#define KVS_TIMEOUT 5

/**
 * An argument is NULL that must not be.
 */
#define KVS_ERR_NULL -1

/**
 * An argument or an option has a value that cannot work.
 */
#define KVS_ERR_INVALID -2

/**
 * This build of the library does not know the option, the engine, the operation or the ABI.
 */
#define KVS_ERR_UNSUPPORTED -3

/**
 * The store has been closed.
 */
#define KVS_ERR_CLOSED -4

/**
 * An earlier failure left unknown which writes are on disk, or a bug was caught on this handle, so
 * it takes no more writes. Reads go on. Reopen the store.
 */
#define KVS_ERR_POISONED -5

/**
 * A bug in the library was caught before it could harm the program. The handle takes no more
 * writes.
 */
#define KVS_ERR_PANIC -6

/**
 * The handle was made in the process that this one was forked from, and cannot be used here.
 */
#define KVS_ERR_FORKED -7

/**
 * The operating system refused to read or write a file.
 */
#define KVS_ERR_IO -8

/**
 * The disk or a quota is full. Nothing acknowledged is lost; reads go on, and writes work again
 * once there is room.
 */
#define KVS_ERR_NO_SPACE -9

/**
 * Bytes on disk contradict themselves; the text says which.
 */
#define KVS_ERR_CORRUPT -10

/**
 * The key is longer than KVS_KEY_LEN_MAX.
 */
#define KVS_ERR_KEY_TOO_LONG -11

/**
 * The value is longer than KVS_VALUE_LEN_MAX.
 */
#define KVS_ERR_VALUE_TOO_LONG -12

/**
 * The batch takes more room than a batch may.
 */
#define KVS_ERR_BATCH_TOO_LONG -13

/**
 * The store is open already, here or in the process that the text names.
 */
#define KVS_ERR_LOCKED -14

/**
 * The path of a store exists and is not a directory.
 */
#define KVS_ERR_NOT_A_DIRECTORY -15

/**
 * There is no store there, and the options say not to create one.
 */
#define KVS_ERR_NO_STORE -16

/**
 * There is a store there already, and the options ask for a new one.
 */
#define KVS_ERR_STORE_EXISTS -17

/**
 * The store has a format that this version does not read.
 */
#define KVS_ERR_FORMAT -18

/**
 * The store was written by another engine than the one asked for.
 */
#define KVS_ERR_WRONG_ENGINE -19

/**
 * The store is open for reading only.
 */
#define KVS_ERR_READ_ONLY -20

/**
 * A text argument is not UTF-8.
 */
#define KVS_ERR_NOT_UTF8 -21

/**
 * The operating system refused a network operation.
 */
#define KVS_ERR_NET -22

/**
 * The operating system refused a thread.
 */
#define KVS_ERR_THREAD -23

/**
 * The other side of a connection broke the protocol.
 */
#define KVS_ERR_PROTOCOL -24

/**
 * An engine that is not ours failed; the text is its own.
 */
#define KVS_ERR_ENGINE -25

/**
 * The operating system denies access to a file or directory.
 */
#define KVS_ERR_PERMISSION -26

/**
 * The version of the library, such as "0.1.0".
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_version(void);

/**
 * The version of the library as a number: major << 24 | minor << 16 | patch << 8. Equal to
 * KVS_VERSION_NUMBER if header and library are of one version.
 *
 * Threads: any.
 */
KVS_API uint32_t kvs_version_number(void);

/**
 * Tells whether the library understands programs compiled with this header. Call it once, before
 * anything else, with KVS_ABI_VERSION.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED if header and library do not fit: kvs_last_error names
 *          both numbers.
 * Threads: any.
 */
KVS_API KVS_MUST_USE kvs_status kvs_check_abi(uint32_t abi_version);

/**
 * The name of a status, such as "KVS_ERR_LOCKED"; "KVS_ERR_UNKNOWN" for a number that is none.
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_status_name(kvs_status status);

/**
 * What a status means, as one sentence. kvs_last_error says more about a failure.
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_status_text(kvs_status status);

/**
 * What the last failure on the calling thread was about, with the path, the offset and the words
 * of the operating system where there are any; never the bytes of a key or a value. One line, in
 * UTF-8. "" if nothing has failed on this thread; never NULL. Calls that return KVS_OK or a
 * positive status leave it as it is.
 *
 * Ownership: the library's; valid until the next failure on the same thread. A runtime that moves
 *            its tasks between threads must not do so between the failed call and this one.
 * Threads:   any; each has its own.
 */
KVS_API const char *kvs_last_error(void);

/**
 * The error number of the operating system (errno) behind the last failure on the calling thread,
 * or 0.
 *
 * Threads: any; each has its own.
 */
KVS_API int32_t kvs_last_os_error(void);

/**
 * Makes a set of options that holds the defaults.
 *
 * Ownership: yours; give it to kvs_options_free.
 * Returns:   NULL only if a bug was caught; kvs_last_error names it.
 * Threads:   any; the result is for one thread at a time.
 */
KVS_API KVS_MUST_USE kvs_options *kvs_options_new(void);

/**
 * Frees a set of options. NULL is allowed.
 *
 * Threads: promises 4 and 5.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API void kvs_options_free(kvs_options *options);

/**
 * Sets an option that takes a number.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes text, or the value cannot work (what only makes sense together with other
 *          options is checked by kvs_open); KVS_ERR_NULL.
 * Threads: promise 5.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API kvs_status kvs_options_set_u64(kvs_options *options, int32_t id, uint64_t value);

/**
 * Sets an option that takes text: value_len bytes of UTF-8 at value, which are copied.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes a number (a name that nothing has is found by kvs_open or
 *          kvs_server_start); KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads: promise 5.
 *
 * # Safety
 *
 * Promises 1, 2, 4 and 5.
 */
KVS_API
kvs_status kvs_options_set_str(kvs_options *options,
                               int32_t id,
                               const char *value,
                               size_t value_len);

/**
 * Stores the value of an option that takes a number; in a fresh set, its default.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes text; KVS_ERR_NULL.
 * Threads: promise 5.
 *
 * # Safety
 *
 * Promises 1, 3, 4 and 5.
 */
KVS_API kvs_status kvs_options_get_u64(const kvs_options *options, int32_t id, uint64_t *value);

/**
 * Opens the store in a directory, and creates both if they are missing and the options do not
 * forbid it. A directory is opened once at a time, by one process.
 *
 * path_utf8 is UTF-8 on every platform. options may be NULL for the defaults.
 *
 * Ownership: *store is yours: kvs_close ends the store, kvs_store_free the pointer. NULL is stored
 *            on failure.
 * Returns:   KVS_OK; KVS_ERR_LOCKED: it is open already; KVS_ERR_NOT_A_DIRECTORY;
 *            KVS_ERR_NO_STORE and KVS_ERR_STORE_EXISTS, if the options ask for that;
 *            KVS_ERR_WRONG_ENGINE; KVS_ERR_FORMAT; KVS_ERR_CORRUPT; KVS_ERR_UNSUPPORTED: no
 *            engine has that name; KVS_ERR_INVALID: an option cannot work, or the path is
 *            empty; KVS_ERR_PERMISSION; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_THREAD;
 *            KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads:   any.
 *
 * # Safety
 *
 * Promises 1 to 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_open(const char *path_utf8,
                    const kvs_options *options,
                    kvs_store **store);

/**
 * Closes a store: waits for calls under way, makes everything durable, and lets go of the
 * directory. Every later call on the store says KVS_ERR_CLOSED; the pointer stays valid until
 * kvs_store_free. Closing twice is no error. A server on the store answers with errors from then
 * on, so stop it first.
 *
 * Returns: KVS_OK; KVS_ERR_IO or KVS_ERR_NO_SPACE: the last writes may not survive power loss; the
 *          store is closed all the same; KVS_ERR_FORKED: nothing was done; KVS_ERR_NULL.
 * Threads: any, beside any other call but kvs_store_free.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_close(kvs_store *store);

/**
 * Frees a store, and closes it first if that has not been done; then a failure to make the last
 * writes durable goes unseen. NULL is allowed. In a child made by fork it releases memory and
 * touches nothing else. Buffers and servers of the store are freed on their own, before or after.
 *
 * Threads: promise 4.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_store_free(kvs_store *store);

/**
 * Looks up the value of a key.
 *
 * Ownership: *value is yours; give it to kvs_buf_free. It stays as it is, whatever happens to the
 *            key or the store. NULL is stored unless the result is KVS_OK.
 * Returns:   KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *            KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads:   any.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get(kvs_store *store,
                   const void *key,
                   size_t key_len,
                   kvs_buf **value);

/**
 * Copies the value of a key into memory of yours: dst has room for capacity bytes. The cheapest
 * way to read: nothing is allocated.
 *
 * *value_len is the length of the value with KVS_OK and with KVS_TOO_SMALL, else 0.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND; KVS_TOO_SMALL: nothing was copied, call again with *value_len
 *          bytes of room; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get_into(kvs_store *store,
                        const void *key,
                        size_t key_len,
                        void *dst,
                        size_t capacity,
                        size_t *value_len);

/**
 * Tells whether a key is there, without its value.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_contains(kvs_store *store, const void *key, size_t key_len);

/**
 * Sets a key to a value, whether or not it was there. When this returns KVS_OK every later read
 * sees the value, and it is as durable as KVS_OPT_DURABILITY says.
 *
 * Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NO_SPACE; KVS_ERR_IO;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_set(kvs_store *store,
                   const void *key,
                   size_t key_len,
                   const void *value,
                   size_t value_len);

/**
 * Removes a key.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND: it was not there, and nothing was written; KVS_ERR_IO;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API kvs_status kvs_remove(kvs_store *store, const void *key, size_t key_len);

/**
 * Stores the number of keys. Costs the same however many there are.
 *
 * Returns: KVS_OK; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. *count is 0 unless KVS_OK.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_len(kvs_store *store, uint64_t *count);

/**
 * Makes every write that has returned so far survive power loss.
 *
 * Returns: KVS_OK; KVS_ERR_IO: the disk refuses, and the store takes no more writes;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_sync(kvs_store *store);

/**
 * Gives back the disk space of overwritten and removed keys, and returns when that is done. Reads
 * and writes go on meanwhile. Not needed for correctness: by default it happens in the background.
 *
 * Returns: KVS_OK; KVS_ERR_NO_SPACE; KVS_ERR_CORRUPT; KVS_ERR_IO: nothing is lost;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_compact(kvs_store *store);

/**
 * The bytes of a buffer. Not NULL for a buffer, also if it has no bytes; NULL for NULL. There is
 * no zero byte after the last one.
 *
 * Ownership: the buffer's; valid until kvs_buf_free, also after the key was overwritten or the
 *            store was closed and freed.
 * Threads:   any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API const void *kvs_buf_data(const kvs_buf *buf);

/**
 * The number of bytes of a buffer; 0 for NULL.
 *
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API size_t kvs_buf_len(const kvs_buf *buf);

/**
 * Frees a buffer. NULL is allowed. A buffer may hold back the disk space that its value lies in,
 * so do not keep it for long.
 *
 * Threads: any; promise 4.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_buf_free(kvs_buf *buf);

/**
 * Starts a server on an open store, in threads of its own. When this returns KVS_OK it is
 * listening. Other programs reach the store through it, for example with kvs-client; this one goes
 * on using the store as before.
 *
 * address is "IP:PORT"; with port 0 the system chooses one, which kvs_server_port tells. There is
 * no authentication, so a loopback address is the safe choice. With KVS_OPT_SERVER_LISTEN_FD the
 * address may be anything but NULL. options may be NULL for the defaults; those that are for
 * stores are not looked at.
 *
 * Ownership: *server is yours; give it to kvs_server_free. It may outlive the store's handle. NULL
 *            is stored on failure.
 * Returns:   KVS_OK; KVS_ERR_NET: the address is no address or cannot be listened on;
 *            KVS_ERR_INVALID: an option cannot work; KVS_ERR_THREAD; KVS_ERR_CLOSED;
 *            KVS_ERR_POISONED; KVS_ERR_FORKED; KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads:   any.
 *
 * # Safety
 *
 * Promises 1 to 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_server_start(kvs_store *store,
                            const char *address,
                            const kvs_options *options,
                            kvs_server **server);

/**
 * Copies the address that a server listens on, as "IP:PORT" with the real port and a zero byte at
 * the end, into memory of yours: dst has room for capacity bytes. 64 are enough for any address.
 *
 * *text_len is the length of the text without the zero byte with KVS_OK and with KVS_TOO_SMALL,
 * else 0.
 *
 * Returns: KVS_OK; KVS_TOO_SMALL: nothing was copied, there must be room for *text_len + 1 bytes;
 *          KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API
kvs_status kvs_server_address(const kvs_server *server,
                              char *dst,
                              size_t capacity,
                              size_t *text_len);

/**
 * Stores the port that a server listens on: the real one, also if it was started with port 0.
 *
 * Returns: KVS_OK; KVS_ERR_FORKED; KVS_ERR_NULL. *port is 0 unless KVS_OK.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API kvs_status kvs_server_port(const kvs_server *server, uint16_t *port);

/**
 * Waits until a server has stopped, because another thread called kvs_server_stop or because it
 * failed; at most timeout_ms milliseconds, or without end with KVS_WAIT_FOREVER.
 *
 * Returns: KVS_OK: it has stopped, and its threads are gone; KVS_TIMEOUT: it is running;
 *          KVS_ERR_NET, KVS_ERR_IO: it failed, and this is why; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_server_wait(kvs_server *server, uint32_t timeout_ms);

/**
 * Stops a server: accepts no more, answers what was received, and after timeout_ms milliseconds
 * cuts off the clients that are left. Returns when its threads are gone and its port is free. The
 * store stays open. Stopping twice is no error.
 *
 * Returns: KVS_OK; KVS_ERR_NET, KVS_ERR_IO: it had failed before; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any, beside any other call but kvs_server_free.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_server_stop(kvs_server *server, uint32_t timeout_ms);

/**
 * Frees a server, and stops it first if that has not been done, without waiting for its clients.
 * NULL is allowed. In a child made by fork it releases memory and touches nothing else.
 *
 * Threads: promise 4.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_server_free(kvs_server *server);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVS_H */
