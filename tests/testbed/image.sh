# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes what a host boots: the distribution's generic kernel, downloaded and unpacked but never
# installed, and an initramfs with busybox and the kernel modules. Both live in $cache, keyed by the
# kernel's version and, for the initramfs, by the scripts inside. Knows nothing of running hosts.

# In the order of loading; dependencies are added. Adding an rxe device fails without crc32_generic.
image_modules=(crc32_generic virtio_pci 9pnet_virtio 9p overlay virtio_net virtio_rng
	rdma_rxe rdma_ucm ib_uverbs sch_netem kvm_amd)

# Sets image_package, image_kernel (version) and image_tree (the unpacked package), or exits 77.
image_check()
{
	local tool cached
	for tool in qemu-system-x86_64 busybox cpio depmod modprobe apt-cache apt-get dpkg-deb \
		flock setsid timeout rdma; do
		[[ -n $(PATH=$PATH:/usr/sbin:/sbin type -P $tool) ]] || die 77 "cannot run here: $tool is missing"
	done
	[[ $(uname -m) == x86_64 ]] || die 77 "cannot run here: the machine is not x86_64"
	if ldd "$(type -P busybox)" >/dev/null 2>&1; then
		die 77 "cannot run here: busybox is not static (install busybox-static)"
	fi
	[[ -e /etc/libibverbs.d/rxe.driver ]] ||
		die 77 "cannot run here: libibverbs has no rxe provider (install ibverbs-providers)"

	image_package=$(LC_ALL=C apt-cache depends linux-image-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1)
	image_kernel=${image_package#linux-image-}
	if [[ -z $image_package || ! -e $cache/$image_kernel/complete ]] &&
		! LC_ALL=C apt-get download --print-uris "${image_package:-none}" >/dev/null 2>&1; then
		cached=$(cd "$cache" 2>/dev/null && ls -d -- */complete 2>/dev/null | sort -V | tail -n 1)
		[[ -n $cached ]] ||
			die 77 "cannot run here: no kernel package is cached or can be downloaded (apt-get update?)"
		image_kernel=${cached%/complete}
		image_package=linux-image-$image_kernel
	fi
	image_tree=$cache/$image_kernel
}

# Unpacks into a folder of its own and renames it, so that an interrupted run leaves no half a tree.
image_unpack_kernel()
{
	local work
	[[ -e $image_tree/complete ]] && return
	work=$(mktemp -d "$cache/unpack.XXXXXX") || die 125 "cannot write to $cache"
	echo "testbed: downloading $image_package"
	# apt's own unprivileged user cannot write into our folder, and apt warns about it.
	if ! (cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$image_package"); then
		rm -rf "$work"
		die 77 "cannot run here: $image_package cannot be downloaded"
	fi
	mkdir "$work/tree" &&
		dpkg-deb -x "$work"/*.deb "$work/tree" &&
		PATH=$PATH:/usr/sbin:/sbin depmod -b "$work/tree" "$image_kernel" &&
		image_uncompress_kernel "$work/tree" &&
		touch "$work/tree/complete" ||
		{ rm -rf "$work"; die 125 "cannot unpack $image_package"; }
	rm -rf "$image_tree"
	mv "$work/tree" "$image_tree"
	rm -rf "$work"
}

# Unpacking the kernel takes an emulated CPU seconds and this one a moment: QEMU boots an ELF vmlinux
# too. Where the compression is not xz, or xz is missing, the image boots as it came.
image_uncompress_kernel()
{
	local vmlinuz=$1/boot/vmlinuz-$image_kernel offset
	ln -s "vmlinuz-$image_kernel" "$1/boot/kernel"
	type -P xz >/dev/null || return 0
	offset=$(LC_ALL=C grep -obUaP -m 1 '\xFD7zXZ\x00' "$vmlinuz" | head -n 1 | cut -d : -f 1)
	[[ -n $offset ]] || return 0
	# What follows the compressed kernel is not xz: the exit status says nothing.
	tail -c "+$((offset + 1))" "$vmlinuz" | xz -dcq >"$1/boot/vmlinux" 2>/dev/null
	[[ $(head -c 4 "$1/boot/vmlinux" | tr -d '\0') == $'\x7fELF' ]] || return 0
	ln -sf vmlinux "$1/boot/kernel"
}

# Sets image_initramfs. Uncompressed: unpacking is what the emulated CPU does worst.
image_make_initramfs()
{
	local hash work module path
	hash=$(sha256sum "$here/init" "$here/agent" "$here/image.sh" "$(type -P busybox)" | sha256sum)
	image_initramfs=$cache/initramfs-$image_kernel-${hash:0:16}.cpio
	[[ -e $image_initramfs ]] && return
	work=$(mktemp -d "$cache/initramfs.XXXXXX") || die 125 "cannot write to $cache"
	mkdir -p "$work"/{bin,modules,proc,sys,dev,host,newroot}
	cp "$(type -P busybox)" "$work/bin/busybox"
	ln -s busybox "$work/bin/sh"
	cp "$here/init" "$here/agent" "$work/"
	chmod 755 "$work/init" "$work/agent"
	for module in "${image_modules[@]}"; do
		PATH=$PATH:/usr/sbin:/sbin modprobe -S "$image_kernel" -d "$image_tree" \
			--show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/paths"
	while read -r path; do
		cp "$path" "$work/modules/" && echo "${path##*/}"
	done <"$work/paths" >"$work/modules/order"
	grep -q kvm-amd "$work/modules/order" && grep -q rdma_rxe "$work/modules/order" ||
		{ rm -rf "$work"; die 125 "$image_package lacks a module that the testbed needs"; }
	(cd "$work" && find . | cpio -o -H newc --quiet) >"$work.cpio" ||
		{ rm -rf "$work" "$work.cpio"; die 125 "cannot write the initramfs"; }
	mv "$work.cpio" "$image_initramfs"
	rm -rf "$work"
}

image_prepare()
{
	mkdir -p "$cache" || die 125 "cannot create $cache"
	(
		# Two testbeds with different state folders may share the cache.
		flock 8
		image_unpack_kernel
		image_make_initramfs
	) 8>"$cache/lock" || exit
	image_make_initramfs
}
