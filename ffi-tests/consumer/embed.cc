// The same as ../examples/embed.c, by C++: that the header and the targets serve it too.
#include <iostream>

#include "kvs.h"

int main(int argc, char **argv) {
    kvs_store *store = nullptr;
    kvs_buf *city = nullptr;
    const bool failed = kvs_open(argc > 1 ? argv[1] : "cities", nullptr, &store) < 0 ||
                        kvs_set(store, "no", 2, "Oslo", 4) < 0 ||
                        kvs_get(store, "no", 2, &city) != KVS_OK;
    if (failed) std::cerr << kvs_last_error() << '\n';
    else std::cout << "no: ", std::cout.write(static_cast<const char *>(kvs_buf_data(city)),
                                              static_cast<std::streamsize>(kvs_buf_len(city)))
                                  << "\n";
    kvs_buf_free(city);
    kvs_store_free(store);
    return failed;
}
