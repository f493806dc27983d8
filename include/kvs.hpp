/*
 * kvs: an embeddable key-value store, for C++17. A thin layer over kvs.h, all of it in this file.
 * Example:
 *
 *     kvs::store store("cities");
 *     store.set("no", "Oslo");
 *     for (auto [key, value] : store.scan_prefix("n")) std::cout << key << ": " << value << '\n';
 *
 * Objects own what they stand for and give it back when they go; they can be moved, not copied.
 * What kvs.h calls a failure is a kvs::error; absence is an empty optional or false. Keys and values
 * are bytes in string_views, which may hold zero bytes. Threads: as kvs.h says of the object inside.
 * A function that is missing here is called with get(), which gives the object of kvs.h.
 */
#ifndef KVS_HPP
#define KVS_HPP

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "kvs.h"

namespace kvs {

/* What the library refused or could not do; what() is its own text. */
class error : public std::runtime_error {
public:
    explicit error(kvs_status code) : std::runtime_error(kvs_last_error()), code_(code) {}
    /* One of KVS_ERR_*. */
    kvs_status code() const noexcept { return code_; }
    /* Its name, such as "KVS_ERR_LOCKED". */
    const char *name() const noexcept { return kvs_status_name(code_); }

private:
    kvs_status code_;
};

namespace detail {

/* Throws if `status` is a failure, and returns it otherwise. */
inline kvs_status check(kvs_status status) {
    if (status < 0) throw error(status);
    return status;
}

/* A pointer of kvs.h, given to `free` at the end. */
template <typename T, void (*free)(T *)>
struct freed {
    void operator()(T *pointer) const noexcept { free(pointer); }
};
template <typename T, void (*free)(T *)>
using owned = std::unique_ptr<T, freed<T, free>>;

/* Where bytes are: not NULL, which would say that they are absent. */
inline const char *at(std::string_view bytes) noexcept {
    return bytes.data() != nullptr ? bytes.data() : "";
}
inline const char *at(const std::optional<std::string_view> &bytes) noexcept {
    return bytes ? at(*bytes) : nullptr;
}
inline std::size_t len(const std::optional<std::string_view> &bytes) noexcept {
    return bytes ? bytes->size() : 0;
}

} // namespace detail

/* A value that the library lends: no copy is made of it. It stays as it is, whatever happens to its
 * key or its store, and may hold back disk space meanwhile. */
class buffer {
public:
    explicit buffer(kvs_buf *taken) noexcept : inner_(taken) {}
    std::string_view view() const noexcept {
        return {static_cast<const char *>(kvs_buf_data(inner_.get())), kvs_buf_len(inner_.get())};
    }
    std::string str() const { return std::string(view()); }
    const kvs_buf *get() const noexcept { return inner_.get(); }

private:
    detail::owned<kvs_buf, kvs_buf_free> inner_;
};

/* Choices for a store or a server, by the numbers KVS_OPT_*. */
class options {
public:
    options() : inner_(kvs_options_new()) {}
    options &set(std::int32_t id, std::uint64_t number) {
        detail::check(kvs_options_set_u64(inner_.get(), id, number));
        return *this;
    }
    options &set(std::int32_t id, std::string_view text) {
        detail::check(kvs_options_set_str(inner_.get(), id, detail::at(text), text.size()));
        return *this;
    }
    const kvs_options *get() const noexcept { return inner_.get(); }

private:
    detail::owned<kvs_options, kvs_options_free> inner_;
};

/* Writes that are applied together or not at all, by store::write. */
class batch {
public:
    batch() : inner_(kvs_batch_new()) {}
    batch &set(std::string_view key, std::string_view value) {
        detail::check(kvs_batch_set(inner_.get(), detail::at(key), key.size(), detail::at(value),
                                    value.size()));
        return *this;
    }
    /* Until expiry_ms, in milliseconds since the Unix epoch. */
    batch &set_with_expiry(std::string_view key, std::string_view value, std::uint64_t expiry_ms) {
        detail::check(kvs_batch_set_with_expiry(inner_.get(), detail::at(key), key.size(),
                                                detail::at(value), value.size(), expiry_ms));
        return *this;
    }
    batch &remove(std::string_view key) {
        detail::check(kvs_batch_remove(inner_.get(), detail::at(key), key.size()));
        return *this;
    }
    std::size_t size() const noexcept { return kvs_batch_count(inner_.get()); }
    void clear() noexcept { kvs_batch_clear(inner_.get()); }
    const kvs_batch *get() const noexcept { return inner_.get(); }

private:
    detail::owned<kvs_batch, kvs_batch_free> inner_;
};

/* A scan under way: a range that can be gone through once (in C++20 a std::ranges::input_range). The
 * views that it gives are good until the next record is asked for. A failure on the way is thrown
 * where the next record is asked for, by begin() or ++. */
class scan {
public:
    using record = std::pair<std::string_view, std::string_view>;
    struct end_of_scan {};

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = record;
        using difference_type = std::ptrdiff_t;
        using pointer = const record *;
        using reference = const record &;

        explicit iterator(kvs_iter *inner) : inner_(inner) { ++*this; }
        reference operator*() const noexcept { return current_; }
        pointer operator->() const noexcept { return &current_; }
        iterator &operator++() {
            const void *key = nullptr, *value = nullptr;
            std::size_t key_len = 0, value_len = 0;
            if (detail::check(kvs_iter_next(inner_, &key, &key_len, &value, &value_len)) == KVS_OK)
                current_ = {{static_cast<const char *>(key), key_len},
                            {static_cast<const char *>(value), value_len}};
            else
                inner_ = nullptr;
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(end_of_scan) const noexcept { return inner_ == nullptr; }
        bool operator!=(end_of_scan) const noexcept { return inner_ != nullptr; }

    private:
        kvs_iter *inner_;
        record current_;
    };

    explicit scan(kvs_iter *taken) noexcept : inner_(taken) {}
    iterator begin() { return iterator(inner_.get()); }
    end_of_scan end() const noexcept { return {}; }
    kvs_iter *get() noexcept { return inner_.get(); }

private:
    detail::owned<kvs_iter, kvs_iter_free> inner_;
};

/* An open store. It is closed at the end of its life; whoever wants to know whether the last writes
 * became durable calls close(). */
class store {
public:
    explicit store(const std::string &path_utf8) : store(path_utf8, nullptr) {}
    store(const std::string &path_utf8, const options &chosen) : store(path_utf8, chosen.get()) {}

    /* A copy of the value of a key. */
    std::optional<std::string> get(std::string_view key) const {
        const auto found = lend(key);
        if (!found) return std::nullopt;
        return found->str();
    }
    /* The value of a key, not copied. */
    std::optional<buffer> lend(std::string_view key) const {
        kvs_buf *value = nullptr;
        detail::check(kvs_get(inner_.get(), detail::at(key), key.size(), &value));
        return taken(value);
    }
    bool contains(std::string_view key) const {
        return detail::check(kvs_contains(inner_.get(), detail::at(key), key.size())) == KVS_OK;
    }
    void set(std::string_view key, std::string_view value) {
        detail::check(kvs_set(inner_.get(), detail::at(key), key.size(), detail::at(value),
                              value.size()));
    }
    /* Until expiry_ms, in milliseconds since the Unix epoch; KVS_EXPIRY_NEVER does not come. */
    void set_with_expiry(std::string_view key, std::string_view value, std::uint64_t expiry_ms) {
        detail::check(kvs_set_with_expiry(inner_.get(), detail::at(key), key.size(),
                                          detail::at(value), value.size(), expiry_ms));
    }
    /* When the key expires, or KVS_EXPIRY_NEVER; nullopt if it is absent. */
    std::optional<std::uint64_t> expiry(std::string_view key) const {
        std::uint64_t expiry_ms = 0;
        if (detail::check(kvs_get_expiry(inner_.get(), detail::at(key), key.size(), &expiry_ms)) !=
            KVS_OK)
            return std::nullopt;
        return expiry_ms;
    }
    /* Lets the key expire, or stay with KVS_EXPIRY_NEVER, and returns when it would have expired
     * before; nullopt if it is absent. */
    std::optional<std::uint64_t> set_expiry(std::string_view key, std::uint64_t expiry_ms) {
        std::uint64_t before_ms = 0;
        if (detail::check(kvs_set_expiry(inner_.get(), detail::at(key), key.size(), expiry_ms,
                                         &before_ms)) != KVS_OK)
            return std::nullopt;
        return before_ms;
    }
    /* Whether the key was there. */
    bool remove(std::string_view key) {
        return detail::check(kvs_remove(inner_.get(), detail::at(key), key.size())) == KVS_OK;
    }
    /* Sets a key, or removes it if there is no value, and returns what it was. */
    std::optional<buffer> swap(std::string_view key, std::optional<std::string_view> value) {
        kvs_buf *previous = nullptr;
        detail::check(kvs_swap(inner_.get(), detail::at(key), key.size(), detail::at(value),
                               detail::len(value), &previous));
        return taken(previous);
    }
    /* Whether the key was what was expected, and is now what is desired; absent is nullopt. */
    bool compare_and_swap(std::string_view key, std::optional<std::string_view> expected,
                          std::optional<std::string_view> desired) {
        return detail::check(kvs_compare_and_swap(
                   inner_.get(), detail::at(key), key.size(), detail::at(expected),
                   detail::len(expected), detail::at(desired), detail::len(desired), nullptr)) ==
               KVS_OK;
    }
    /* All of a batch or nothing; flags is 0 or KVS_WRITE_SYNC. */
    void write(const batch &writes, std::uint32_t flags = 0) {
        detail::check(kvs_write(inner_.get(), writes.get(), flags));
    }

    /* The keys from start on and before end; nullopt is no bound. flags are KVS_SCAN_*. */
    kvs::scan scan(std::optional<std::string_view> start = std::nullopt,
                   std::optional<std::string_view> end = std::nullopt,
                   std::uint32_t flags = 0) const {
        kvs_iter *iter = nullptr;
        detail::check(kvs_scan(inner_.get(), detail::at(start), detail::len(start),
                               detail::at(end), detail::len(end), flags, &iter));
        return kvs::scan(iter);
    }
    kvs::scan scan_prefix(std::string_view prefix, std::uint32_t flags = 0) const {
        kvs_iter *iter = nullptr;
        detail::check(kvs_scan_prefix(inner_.get(), detail::at(prefix), prefix.size(), flags,
                                      &iter));
        return kvs::scan(iter);
    }
    kvs::scan scan_unordered(std::uint32_t flags = 0) const {
        kvs_iter *iter = nullptr;
        detail::check(kvs_scan_unordered(inner_.get(), flags, &iter));
        return kvs::scan(iter);
    }

    std::uint64_t size() const {
        std::uint64_t count = 0;
        detail::check(kvs_len(inner_.get(), &count));
        return count;
    }
    kvs_stats stats() const {
        kvs_stats figures;
        detail::check(kvs_get_stats(inner_.get(), &figures, sizeof figures));
        return figures;
    }
    /* Removes every key. */
    void clear() { detail::check(kvs_clear(inner_.get())); }
    /* Shows what has been written since, if this is open for reading only. */
    void refresh() { detail::check(kvs_refresh(inner_.get())); }
    void sync() { detail::check(kvs_sync(inner_.get())); }
    void compact() { detail::check(kvs_compact(inner_.get())); }
    void checkpoint(const std::string &dest_utf8) {
        detail::check(kvs_checkpoint(inner_.get(), dest_utf8.c_str()));
    }
    /* Throws if the last writes may not survive power loss; the store is closed all the same. */
    void close() { detail::check(kvs_close(inner_.get())); }
    kvs_store *get() const noexcept { return inner_.get(); }

private:
    store(const std::string &path_utf8, const kvs_options *chosen) {
        kvs_store *opened = nullptr;
        detail::check(kvs_open(path_utf8.c_str(), chosen, &opened));
        inner_.reset(opened);
    }
    static std::optional<buffer> taken(kvs_buf *value) {
        if (value == nullptr) return std::nullopt;
        return buffer(value);
    }

    detail::owned<kvs_store, kvs_store_free> inner_;
};

/* A server on an open store; it stops at the end of its life. */
class server {
public:
    explicit server(const store &served, const std::string &address = "127.0.0.1:0")
        : server(served, address, nullptr) {}
    server(const store &served, const std::string &address, const options &chosen)
        : server(served, address, chosen.get()) {}

    std::uint16_t port() const {
        std::uint16_t number = 0;
        detail::check(kvs_server_port(inner_.get(), &number));
        return number;
    }
    /* Whether it has stopped within that time. */
    bool wait(std::uint32_t timeout_ms = KVS_WAIT_FOREVER) {
        return detail::check(kvs_server_wait(inner_.get(), timeout_ms)) == KVS_OK;
    }
    void stop(std::uint32_t timeout_ms = 5000) {
        detail::check(kvs_server_stop(inner_.get(), timeout_ms));
    }
    kvs_server *get() const noexcept { return inner_.get(); }

private:
    server(const store &served, const std::string &address, const kvs_options *chosen) {
        kvs_server *started = nullptr;
        detail::check(kvs_server_start(served.get(), address.c_str(), chosen, &started));
        inner_.reset(started);
    }

    detail::owned<kvs_server, kvs_server_free> inner_;
};

} // namespace kvs

#endif /* KVS_HPP */
