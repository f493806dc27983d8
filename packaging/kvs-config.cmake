# The targets kvs::kvs, the shared library, and kvs::static. Everything is found from where this file
# lies, PREFIX/LIBDIR/cmake/kvs or PREFIX/share/cmake/kvs, so an installed tree may be moved. What it
# has to know is in kvs.h.
set(_kvs_prefix "${CMAKE_CURRENT_LIST_DIR}")
foreach(_kvs_step RANGE 5)
  if(NOT EXISTS "${_kvs_prefix}/include/kvs.h")
    get_filename_component(_kvs_prefix "${_kvs_prefix}" DIRECTORY)
  endif()
endforeach()
file(STRINGS "${_kvs_prefix}/include/kvs.h" _kvs_abi REGEX "^#define KVS_ABI_VERSION [0-9]+$")
string(REGEX REPLACE ".* " "" _kvs_abi "${_kvs_abi}")

# Beside this file's folder, else where CMake looks for libraries below a prefix.
unset(_kvs_lib)
foreach(_kvs_dir "${CMAKE_CURRENT_LIST_DIR}/../.." "${_kvs_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}"
    "${_kvs_prefix}/lib64" "${_kvs_prefix}/lib")
  if(NOT DEFINED _kvs_lib AND (EXISTS "${_kvs_dir}/libkvs.a" OR EXISTS "${_kvs_dir}/libkvs.so"))
    get_filename_component(_kvs_lib "${_kvs_dir}" ABSOLUTE)
  endif()
endforeach()

if(NOT DEFINED _kvs_lib)
  set(kvs_FOUND FALSE)
  set(kvs_NOT_FOUND_MESSAGE "no libkvs below ${_kvs_prefix}, where its kvs-config.cmake lies")
elseif(NOT TARGET kvs::kvs)
  add_library(kvs::kvs SHARED IMPORTED)
  set_target_properties(kvs::kvs PROPERTIES
    IMPORTED_LOCATION "${_kvs_lib}/libkvs.so.${_kvs_abi}"
    IMPORTED_SONAME "libkvs.so.${_kvs_abi}"
    INTERFACE_INCLUDE_DIRECTORIES "${_kvs_prefix}/include")

  add_library(kvs::static STATIC IMPORTED)
  set_target_properties(kvs::static PROPERTIES
    IMPORTED_LOCATION "${_kvs_lib}/libkvs.a"
    INTERFACE_COMPILE_DEFINITIONS KVS_STATIC
    # What rustc says that its own library needs; a test compares the two.
    INTERFACE_LINK_LIBRARIES "-lgcc_s;-lutil;-lrt;-lpthread;-lm;-ldl;-lc"
    INTERFACE_INCLUDE_DIRECTORIES "${_kvs_prefix}/include")
endif()
