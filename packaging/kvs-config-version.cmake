# The version is that of the kvs.h which was installed with this file.
set(_kvs_prefix "${CMAKE_CURRENT_LIST_DIR}")
foreach(_kvs_step RANGE 5)
  if(NOT EXISTS "${_kvs_prefix}/include/kvs.h")
    get_filename_component(_kvs_prefix "${_kvs_prefix}" DIRECTORY)
  endif()
endforeach()
file(STRINGS "${_kvs_prefix}/include/kvs.h" _kvs_parts REGEX "^#define KVS_VERSION_[A-Z]+ [0-9]+$")
string(REGEX REPLACE "#define KVS_VERSION_[A-Z]+ " "" _kvs_parts "${_kvs_parts}")
string(REPLACE ";" "." PACKAGE_VERSION "${_kvs_parts}")

# Before 1.0 a minor version may break what an earlier one promised; then only a major one may.
string(REGEX MATCH "^(0\\.)?[0-9]+" _kvs_series "${PACKAGE_VERSION}")
string(REGEX MATCH "^(0\\.)?[0-9]+" _kvs_wanted "${PACKAGE_FIND_VERSION}")
if(NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION AND
   (_kvs_wanted STREQUAL _kvs_series OR _kvs_wanted STREQUAL ""))
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
