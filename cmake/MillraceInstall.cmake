# The package: find_package(millrace) gives millrace::millrace, all of the library as one target.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(millrace_all INTERFACE)
add_library(millrace::millrace ALIAS millrace_all)
set_target_properties(millrace_all PROPERTIES EXPORT_NAME millrace)
target_link_libraries(millrace_all INTERFACE millrace::pipeline)
target_include_directories(millrace_all INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

get_property(libraries GLOBAL PROPERTY MILLRACE_LIBRARIES)
install(TARGETS ${libraries} millrace_all EXPORT millraceTargets)
install(CODE "set(SOURCE [[${PROJECT_SOURCE_DIR}]])
  set(DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/millrace\")
  include([[${PROJECT_SOURCE_DIR}/cmake/InstallHeaders.cmake]])")

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/millrace)
configure_package_config_file(cmake/millraceConfig.cmake.in ${PROJECT_BINARY_DIR}/millraceConfig.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/millraceConfig.cmake ${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake
  cmake/FindCUDNN.cmake cmake/FindGloo.cmake cmake/FindOneDNN.cmake cmake/FindOpenCV.cmake DESTINATION ${package_folder})
install(EXPORT millraceTargets NAMESPACE millrace:: DESTINATION ${package_folder})
