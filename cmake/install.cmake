# install.cmake - what `cmake --install` and `make install` install, and packages of it (cpack).
#
# Everything finds the rest by its own place, so that the prefix can be chosen when it is installed.
include(CMakePackageConfigHelpers)
set(doc_dir ${CMAKE_INSTALL_DATADIR}/doc/qwen3-mpi)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qwen3)

# ---- The library: headers, CMake package, pkg-config -------------------------------------------
install(FILES include/qwen3.h include/qwen3_scheduler.h include/qwen3_grammar.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS qwen3 qwen3_static EXPORT qwen3)
install(EXPORT qwen3 NAMESPACE qwen3:: FILE qwen3-targets.cmake DESTINATION ${package_dir})
if(QWEN3_MPI)
  install(FILES include/qwen3_mpi.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(TARGETS qwen3_mpi EXPORT qwen3-mpi)
  install(EXPORT qwen3-mpi NAMESPACE qwen3:: FILE qwen3-mpi-targets.cmake DESTINATION ${package_dir})
endif()
write_basic_package_version_file(qwen3-config-version.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES cmake/qwen3-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/qwen3-config-version.cmake
        DESTINATION ${package_dir})

file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
list(JOIN static_libraries " " pc_static)
configure_file(cmake/qwen3.pc.in qwen3.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/qwen3.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(QWEN3_MPI)
  list(TRANSFORM MPI_C_INCLUDE_DIRS PREPEND -I OUTPUT_VARIABLE pc_mpi_cflags)
  list(JOIN pc_mpi_cflags " " pc_mpi_cflags)
  list(JOIN MPI_C_LIBRARIES " " pc_mpi_libs)
  configure_file(cmake/qwen3-mpi.pc.in qwen3-mpi.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/qwen3-mpi.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

# ---- Documents, examples, the demo model -------------------------------------------------------
install(FILES LICENSE README.md DESTINATION ${doc_dir})
install(DIRECTORY docs/ DESTINATION ${doc_dir}/docs PATTERN notebook EXCLUDE)
install(DIRECTORY examples DESTINATION ${doc_dir})
install(DIRECTORY models/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/qwen3-mpi/models)

# An environment module names its prefix, which is known when it is installed.
set(module_dir ${CMAKE_INSTALL_DATADIR}/modulefiles/qwen3-mpi)
install(CODE "
  set(version ${PROJECT_VERSION})
  set(libdir ${CMAKE_INSTALL_LIBDIR})
  set(module \${CMAKE_INSTALL_PREFIX}/${module_dir}/${PROJECT_VERSION})
  configure_file(${PROJECT_SOURCE_DIR}/packaging/modulefile.in \$ENV{DESTDIR}\${module} @ONLY)
  list(APPEND CMAKE_INSTALL_MANIFEST_FILES \${module})")

# ---- The programs, and what is made of their --help --------------------------------------------
if(QWEN3_PROGRAMS)
  install(TARGETS program_qwen3 program_benchmark_qwen3 program_test_parallel_strategies)
  if(NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR)
    set(pages ${PROJECT_BINARY_DIR}/share)
    add_custom_command(OUTPUT ${pages}/made
      COMMAND ${PROJECT_SOURCE_DIR}/scripts/make_pages.sh ${PROJECT_BINARY_DIR}/bin ${pages} ${PROJECT_VERSION}
              ${CMAKE_CROSSCOMPILING_EMULATOR}
      DEPENDS program_qwen3 program_benchmark_qwen3 program_test_parallel_strategies scripts/make_pages.sh scripts/help.awk
              scripts/man.awk scripts/options.awk scripts/completion.awk
      COMMENT "Making man pages and completion" VERBATIM)
    add_custom_target(pages ALL DEPENDS ${pages}/made)
    install(DIRECTORY ${pages}/man ${pages}/bash-completion ${pages}/zsh DESTINATION ${CMAKE_INSTALL_DATADIR})
  endif()
endif()

# ---- Packages ----------------------------------------------------------------------------------
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME qwen3-mpi)
set(CPACK_PACKAGE_CONTACT "maintainers of qwen3-mpi")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Qwen3 language models on CPUs and clusters of CPUs")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/lib)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
if(MPI_C_LIBRARIES MATCHES openmpi)
  set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openmpi-bin)
elseif(MPI_C_LIBRARIES MATCHES mpich)
  set(CPACK_DEBIAN_PACKAGE_RECOMMENDS mpich)
endif()
include(CPack)
