# Install rules: headers, CMake package, pkg-config file. Nothing installed depends on the architecture or on the prefix.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(heed_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/heed")
set(heed_pkgconfig_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")

install(DIRECTORY include/heed DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp")
install(TARGETS heed EXPORT heed-targets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT heed-targets NAMESPACE heed:: DESTINATION "${heed_package_dir}")

configure_package_config_file(cmake/heed-config.cmake.in heed-config.cmake INSTALL_DESTINATION "${heed_package_dir}")
write_basic_package_version_file(heed-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/heed-config.cmake" "${CMAKE_CURRENT_BINARY_DIR}/heed-config-version.cmake"
              cmake/heed-dependencies.cmake cmake/HeedDispatch.cmake cmake/dispatch.hpp.in cmake/dispatch.cpp.in
        DESTINATION "${heed_package_dir}")

# From the directory of heed.pc back to the prefix, so that the tree can be moved.
file(RELATIVE_PATH heed_prefix_from_pc "${CMAKE_INSTALL_PREFIX}/${heed_pkgconfig_dir}" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" heed_prefix_from_pc "${heed_prefix_from_pc}")
configure_file(cmake/heed.pc.in heed.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/heed.pc" DESTINATION "${heed_pkgconfig_dir}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
