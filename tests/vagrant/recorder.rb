# Evaluates the Vagrantfile that is its argument, and prints in JSON what it sets up on each machine: addresses
# of private networks, and provisioners in the order in which Vagrant runs them (those of all machines first).
require "json"

class Machine
  attr_reader :networks, :provisioners

  def initialize(common = [])
    @networks = []
    @provisioners = common.dup
  end

  def vm = self
  def network(_kind, ip:, **) = @networks << ip
  def provision(name, **options) = @provisioners << {name: name}.merge(options)
  def hostname=(_name); end
  def box=(_name); end
  def synced_folder(*, **); end
  def provider(_name); end
end

class Configuration < Machine
  attr_reader :machines

  def define(name)
    yield (@machines ||= {})[name] = Machine.new(@provisioners)
  end
end

module Vagrant
  def self.configure(_version)
    configuration = Configuration.new
    yield configuration
    puts configuration.machines.transform_values { |it| {networks: it.networks, provisioners: it.provisioners} }.to_json
  end
end

load ARGV.fetch(0)
